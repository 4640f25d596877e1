// SPDX-License-Identifier: Apache-2.0
// Patterns of pre-tokenizers: which are accepted, what Oniguruma's syntax is translated to, and how
// much work a match may take.
#include <espalier/text/regex.hpp>

#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::text;
using espalier::test::message_of;

namespace {

std::string refusal(const std::string& pattern) {
  return message_of<FormatError>([&] { (void)Regex(pattern, "tokenizer.json"); });
}

}  // namespace

TEST_CASE("regex: the patterns of known tokenizers are accepted", "[text][regex]") {
  const std::pair<const char*, const char*> known[] = {
      {"GPT-2", R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
      {"Llama 3",
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
      {"Qwen 2",
       R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
      {"o200k",
       R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
      {"DeepSeek V3, numbers", R"(\p{N}{1,3})"},
      {"DeepSeek V3, Han", "[一-龥\u3040-ゟ゠-ヿ]+"},
      {"DeepSeek V3, words",
       R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
      {"possessive", R"([^\r\n\p{L}\p{N}]?+\p{L}++|\s++$)"}};
  for (const auto& [name, pattern] : known) {
    CAPTURE(name);
    CHECK(refusal(pattern) == "no exception");
  }
}

TEST_CASE("regex: what Oniguruma reads differently is refused by name", "[text][regex]") {
  CHECK(refusal("[a-z&&[^t]]+") ==
        "tokenizer.json: pattern '[a-z&&[^t]]+' has '&&' at byte 4, which is not supported: "
        "Oniguruma, for which it is written, and PCRE2 differ there");
  const std::pair<const char*, const char*> foreign[] = {
      {R"(\h+)", "\\h"},
      {R"(a\H)", "\\H"},
      {R"(\w+)", "\\w"},
      {R"([\W])", "\\W"},
      {R"(\bword)", "\\b"},
      {R"(\v)", "\\v"},
      {R"(\R)", "\\R"},
      {R"(\X)", "\\X"},
      {R"(\Ka)", "\\K"},
      {R"(\Ga)", "\\G"},
      {R"((a)\1)", "\\1"},
      {R"(\k<n>)", "\\k"},
      {R"(\g<n>)", "\\g"},
      {R"(\Qa\E)", "\\Q"},
      {R"(\u0041)", "\\u"},
      {R"(\x80)", "\\x80"},
      {R"(\pL)", "\\p"},
      {"[[:alpha:]]", "["},
      {"[a[bc]]", "["},
      {"[]a]", "]"},
      {R"([\s-x])", "-"},
      {R"([a-\d])", "\\d"},
      {"a{,3}", "{,3}"},
      {"a{2}?", "{2}?"},
      {"a{1,3}+", "{1,3}+"},
      {"a(?i)b|c", "(?i"},
      {"(?m:a)", "(?m"},
      {"(?x: a)", "(?x"},
      {"(?s:.)", "(?s"},
      {"(?#c)a", "(?#"},
      {"(?~a)", "(?~"},
      {"(?R)?", "(?R"},
      {"(?(1)a)", "(?("},
      {"(?|a)", "(?|"},
      {"(?P<n>a)", "(?P"},
      {"(*UTF)a", "(*"},
      {R"(\p{script=Han})", R"(\p{script=Han})"}};
  for (const auto& [pattern, named] : foreign) {
    CAPTURE(pattern);
    CHECK_THAT(refusal(pattern), Catch::Contains("has '" + std::string(named) + "' at byte"));
  }
  CHECK_THAT(refusal(R"(\p{Nonsense}+)"), Catch::Contains("does not compile"));
  CHECK_THAT(refusal("[a"), Catch::Contains("a [ is not closed"));
  CHECK_THAT(refusal("a\\"), Catch::Contains("does not compile"));
}

TEST_CASE("regex: what differs in spelling only is translated", "[text][regex]") {
  const auto all = [](const char* pattern, std::string_view s) {
    std::vector<std::string> found;
    for (const Span& m : Regex(pattern, "t").find_all(s)) {
      found.emplace_back(s.substr(m.begin, m.end - m.begin));
    }
    return found;
  };
  using Texts = std::vector<std::string>;
  // As Hugging Face's tokenizers 0.22 splits. U+30FC is of script Common, and extends Katakana.
  CHECK(all(R"(\p{Katakana}+)", "カタカナーabc") == Texts{"カタカナ"});
  CHECK(all(R"(\p{Han}+)", "日本語、abc") == Texts{"日本語"});
  CHECK(all(R"([^\S ]+)", "a \t\u180eb\u00a0") == Texts{"\t", "\u00a0"});
  CHECK(all(R"(\p{^L}+)", "ab12c") == Texts{"12"});
  CHECK(all("(?i)a|b", "aAbB") == Texts{"a", "A", "b", "B"});
  CHECK(all("a{1,2}?b|x{", "aab x{") == Texts{"aab", "x{"});
}

TEST_CASE("regex: a long match needs no stack", "[text][regex]") {
  for (const char* pattern : {"(?:a|b|c| )+|.", R"((?:\p{L}|\p{M})+|.)", "(?:[a-z]+ ?)+|."}) {
    for (const std::size_t bytes : {1367, 5125, 200'000}) {
      CAPTURE(pattern, bytes);
      CHECK(Regex(pattern, "t").find_all(std::string(bytes, 'a')) == std::vector<Span>{{0, bytes}});
    }
  }
}

TEST_CASE("regex: a pattern that backtracks without end is given up, by name", "[text][regex]") {
  const Regex regex("(?:(?:a|aa)+)+[!?]", "tokenizer.json");
  CHECK_THAT(
      message_of<FormatError>([&] { (void)regex.find_all(std::string(2000, 'a')); }),
      Catch::StartsWith("tokenizer.json: pattern '(?:(?:a|aa)+)+[!?]' needs too much work for a "
                        "text of 2000 bytes"));
  CHECK(regex.find_all("aaa!") == std::vector<Span>{{0, 4}});
  // Recursion, found by fuzzing: four texts of 2000 characters took 20 seconds.
  CHECK_THAT(refusal(R"((?:a|\s*\p{L}*$|(?R)?###oo\p{N}]+p{N|(?R)?###oo))"),
             Catch::Contains("(?R"));
}

TEST_CASE("regex: a place that takes many steps does not change what is found", "[text][regex]") {
  // 5000 spaces before a letter: `\s*[\r\n]+` gives up each of them in turn.
  const std::string spaces(5000, ' ');
  CHECK(Regex(R"(\s*[\r\n]+|\s+(?!\S)|\s+|x)", "t").find_all(spaces + "x\n") ==
        std::vector<Span>{{0, 4999}, {4999, 5000}, {5000, 5001}, {5001, 5002}});
  CHECK(Regex("(?:a|\u00e4)+b", "t").find_all(std::string(3000, 'a') + "\u00e4\u00e4 ab") ==
        std::vector<Span>{{3005, 3007}});
}
