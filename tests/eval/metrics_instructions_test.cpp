// SPDX-License-Identifier: Apache-2.0
// IFEval's instructions: each followed and not followed. 3000 random responses to six of them each
// gave what lm-evaluation-harness' copy of the checker gives, but for three, where NLTK's tokenizer
// separates an asterisk from a capital word.
#include <espalier/eval/metrics/instructions.hpp>

#include <cmath>
#include <map>
#include <set>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::eval::metrics;
using espalier::test::message_of;

namespace {

io::Json json(const std::string& text) {
  return io::parse_json(text, "row");
}

struct Example {
  std::string id, kwargs, followed, broken;
};

}  // namespace

TEST_CASE("instructions: each of IFEval's is recognised when followed and when not",
          "[eval][metrics]") {
  const std::vector<Example> examples = {
      {"keywords:existence", R"({"keywords": ["cat", "d.g"]})", "Dogs and CATS", "cats"},
      {"keywords:frequency", R"({"keyword": " a ", "frequency": 2, "relation": "at least"})",
       "A banana", "b c a"},
      {"keywords:forbidden_words", R"({"forbidden_words": ["end"]})", "the ending", "The END."},
      {"keywords:letter_frequency",
       R"({"letter": "E", "let_frequency": 2, "let_relation": "less than"})", "one", "eE"},
      {"length_constraints:number_sentences", R"({"num_sentences": 2, "relation": "at least"})",
       "One. Two", "Only Dr. Who"},
      {"length_constraints:number_paragraphs", R"({"num_paragraphs": 2})", "a\n***\nb", "a\n\nb"},
      {"length_constraints:number_words", R"({"num_words": 3, "relation": "less than"})", "it is",
       "it's me"},
      {"length_constraints:nth_paragraph_first_word",
       R"({"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"})", "a\n\n\"then, b",
       "then\n\na"},
      {"detectable_content:number_placeholders", R"({"num_placeholders": 2})", "[a] and [b]",
       "[a and\nb]"},
      {"detectable_content:postscript", R"({"postscript_marker": "P.S."})", "x\np. s. y", "ps"},
      {"detectable_format:number_bullet_lists", R"({"num_bullets": 2})", "* a\n  - b",
       "* a\n**b**"},
      {"detectable_format:constrained_response", "{}", "So: My answer is no.", "My answer is none"},
      {"detectable_format:number_highlighted_sections", R"({"num_highlights": 2})", "*a* **b**",
       "*a* ** **"},
      {"detectable_format:multiple_sections", R"({"section_spliter": "Part", "num_sections": 2})",
       "Part 1 a Part2 b", "Part 1, part 2"},
      {"detectable_format:json_format", "{}", "```json\n{\"a\": [1]}\n```", "{a: 1}"},
      {"detectable_format:title", "{}", "<<A>>\ntext", "<< >>"},
      {"combination:two_responses", "{}", "a ****** b", "a ****** a"},
      {"combination:repeat_prompt", R"({"prompt_to_repeat": "Say Hi. "})", " say hi. Hi!", "Hi!"},
      {"startend:end_checker", R"({"end_phrase": "The end"})", "so: \"the END\"", "the end."},
      {"startend:quotation", "{}", " \"a\"\n", "\""},
      {"change_case:capital_word_frequency",
       R"({"capital_frequency": 2, "capital_relation": "at least"})", "NASA AND us", "NASA and Us"},
      {"change_case:english_capital", "{}", "A 1 É!", "A b"},
      {"change_case:english_lowercase", "{}", "a 1", "1 2"},
      {"punctuation:no_comma", "{}", "a; b", "a, b"}};
  std::set<std::string> seen;
  for (const Example& e : examples) {
    CAPTURE(e.id);
    seen.insert(e.id);
    CHECK(follows_instruction(e.id, json(e.kwargs), e.followed));
    CHECK_FALSE(follows_instruction(e.id, json(e.kwargs), e.broken));
    CHECK_FALSE(follows_instruction(e.id, json(e.kwargs), " \n"));
  }
  const std::vector<std::string> all = checked_instructions();
  CHECK(seen == std::set<std::string>(all.begin(), all.end()));
  CHECK(all.size() == 24);
}

TEST_CASE("instructions: loose variants, and shares of prompts and instructions",
          "[eval][metrics]") {
  const io::Json kwargs =
      json(R"([{"num_words": null, "keywords": null}, {"end_phrase": "bye", "relation": null}])");
  const std::vector<std::string> ids = {"detectable_format:json_format", "startend:end_checker"};
  // Without its first line it is JSON; without the asterisks it ends with "bye".
  const FollowedInstructions f = follow_instructions(ids, kwargs, "Here:\n[1]");
  CHECK(f.strict == std::vector<bool>{false, false});
  CHECK(f.loose == std::vector<bool>{true, false});
  const FollowedInstructions g = follow_instructions(ids, kwargs, "So\n**bye**\nNote");
  CHECK(g.strict == std::vector<bool>{false, false});
  CHECK(g.loose == std::vector<bool>{false, true});
  const FollowedInstructions h = follow_instructions(ids, kwargs, "\"bye\"");
  CHECK(h.strict == std::vector<bool>{true, true});
  InstructionScores scores;
  CHECK(std::isnan(scores.prompt_strict()));
  for (const FollowedInstructions& one : {f, g, h}) scores.add(one);
  CHECK(scores.prompt_strict() == 1.0 / 3);
  CHECK(scores.prompt_loose() == 1.0 / 3);
  CHECK(scores.instruction_strict() == 2.0 / 6);
  CHECK(scores.instruction_loose() == 4.0 / 6);
}

TEST_CASE("instructions: rows that cannot be checked are refused", "[eval][metrics]") {
  CHECK_FALSE(is_checked_instruction("language:response_language"));
  CHECK(is_checked_instruction("punctuation:no_comma"));
  CHECK_THAT(message_of<UnsupportedError>(
                 [] { (void)follows_instruction("language:response_language", json("{}"), "x"); }),
             Catch::Contains("needs a language identifier; leave the row out"));
  const auto message = [](const char* id, const char* kwargs) {
    return message_of<FormatError>([&] { (void)follows_instruction(id, json(kwargs), "x"); });
  };
  CHECK_THAT(message("keywords:nothing", "{}"), Catch::Contains("is no instruction of IFEval"));
  CHECK_THAT(message("startend:end_checker", "{}"),
             Catch::Contains("startend:end_checker needs \"end_phrase\""));
  CHECK_THAT(message("length_constraints:number_words", R"({"num_words": 3, "relation": "above"})"),
             Catch::Contains("expected \"less than\" or \"at least\", found \"above\""));
  CHECK_THAT(message("keywords:existence", R"({"keywords": ["("]})"),
             Catch::Contains("pattern '(?i)(' does not compile"));
  CHECK_THAT(message_of<FormatError>(
                 [] { (void)follow_instructions({"punctuation:no_comma"}, json("[]"), "x"); }),
             Catch::Contains("1 instructions, but arguments of 0"));
}
