// SPDX-License-Identifier: Apache-2.0
// Tokenizers and chat templates: their work grows with their input, not with its square.
#include <espalier/text/chat_template.hpp>
#include <espalier/text/tokenizer.hpp>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/work_counter.hpp"

using namespace espalier;
using namespace espalier::text;
using espalier::test::require_linear;

namespace {

const std::filesystem::path kGolden =
    std::filesystem::path(ESPALIER_TESTS_DIR) / "golden" / "tokenizer";

std::string repeated(std::string_view unit, std::size_t bytes) {
  std::string s;
  while (s.size() < bytes) s += unit;
  return s;
}

/// Runs without spaces, of spaces, of marks, of anything that a tokenizer may not cut.
const std::vector<std::string> kUnits = {"a",
                                         " ",
                                         "\n",
                                         "ab",
                                         "a ",
                                         "7",
                                         "\u0301",
                                         "\u0316\u0301",
                                         "e\u0301",
                                         "\U0001F600\u200D",
                                         "\u4f60\u597d",
                                         "\uAC00\u11A8",
                                         "\t \n",
                                         "\xC2\xA0",
                                         "\x01",
                                         "!?",
                                         "  a",
                                         "<s>",
                                         "\u2581"};

}  // namespace

TEST_CASE("scaling: encoding and decoding a text without good places to cut") {
  for (const char* name : {"byte_level.json", "byte_fallback.json"}) {
    const Tokenizer tokenizer = Tokenizer::load(kGolden / name);
    for (const std::string& unit : kUnits) {
      CAPTURE(name, unit);
      require_linear(2000, [&](std::size_t bytes) {
        return
            [&, text = repeated(unit, bytes)] { (void)tokenizer.decode(tokenizer.encode(text)); };
      });
    }
  }
}

TEST_CASE("scaling: Unicode normalization of runs of combining marks") {
  for (const bool compose : {true, false}) {
    for (const bool compatibility : {true, false}) {
      for (const std::string& unit : kUnits) {
        CAPTURE(compose, compatibility, unit);
        const UnicodeNormalizer normalizer{compose, compatibility};
        require_linear(2000, [&](std::size_t bytes) {
          return [&, text = "a" + repeated(unit, bytes)] { (void)normalizer.apply(text); };
        });
      }
    }
  }
}

TEST_CASE("scaling: reading a tokenizer with many added tokens") {
  require_linear(500, [](std::size_t count) {
    std::string list;
    for (std::size_t i = 0; i < count; ++i) {
      list += (i > 0 ? "," : "") + std::string("{\"id\":") + std::to_string(1000 + i) +
              ",\"content\":\"<added_" + std::to_string(i) + ">\"}";
    }
    const std::string text =
        "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0},\"merges\":[]},"
        "\"added_tokens\":[" +
        list + "]}";
    return [text] { (void)parse_tokenizer_json(text, "tokenizer.json"); };
  });
}

TEST_CASE("scaling: added tokens of white space that take the white space around them") {
  for (const char* strips :
       {"\"lstrip\":true", "\"rstrip\":true", "\"lstrip\":true,\"rstrip\":true"}) {
    CAPTURE(strips);
    const Tokenizer tokenizer(parse_tokenizer_json(
        std::string(R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"added_tokens":[)"
                    R"({"id":1,"content":" ","special":true,)") +
            strips + "}]}",
        "tokenizer.json"));
    for (const char* unit : {" ", " a", "  \n"}) {
      require_linear(2000, [&](std::size_t bytes) {
        return [&, text = repeated(unit, bytes)] { (void)tokenizer.encode(text); };
      });
    }
  }
}

TEST_CASE("scaling: recognising and rendering chat templates") {
  for (const char* unit :
       {"{{ 'a' + \"b\" }}", "{% if x %}\n", "text \n", "{# c #}", "''", "{{'", "\\"}) {
    CAPTURE(unit);
    require_linear(2000, [&](std::size_t bytes) {
      return [text = repeated(unit, bytes)] { (void)recognise_template(text); };
    });
  }
  const ChatTemplate chatml = ChatTemplate::named("chatml");
  require_linear(200, [&](std::size_t count) {
    const std::vector<Message> messages(count, {"user", "hello"});
    return [&, messages] { (void)chatml.render(messages, true); };
  });
}
