// SPDX-License-Identifier: Apache-2.0
// What looks for an answer in a generated text: its work grows with the text, not with its square.
// Distances between two texts (TER, ROUGE-L, edit distance) are quadratic by definition.
#include <espalier/eval/metrics.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"
#include "support/work_counter.hpp"

using namespace espalier;
using namespace espalier::eval::metrics;
using espalier::test::require_linear;

namespace {

std::string repeated(std::string_view unit, std::size_t bytes) {
  std::string s;
  while (s.size() < bytes) s += unit;
  return s;
}

/// What opens and never closes, what nearly matches, and runs of one kind.
const std::vector<std::string> kUnits = {
    "a",      " ",      "\n",    "1",  "1 ",   ".",      "a.",      "A. ",       ",",
    "'",      "\"",     "*",     "$",  "$a\n", "\\(",    "\\[",     "\\boxed",   "\\boxed{",
    "{",      "}",      "(",     "-(", "1+",   "answer", "answer:", "answer = ", "final answer is ",
    "\\frac", "\\sqrt", "#### ", "<<", "[",    "- ",     "\u00e9",  "\xff",      "p.s."};

}  // namespace

TEST_CASE("scaling: answers, words and sentences of a long text") {
  const AnswerFilter flexible = AnswerFilter::regex({std::string(kGsm8kFlexible), -1, ""}, "t");
  const LetterAnswer letters(4, true);
  for (const std::string& unit : kUnits) {
    CAPTURE(unit);
    const auto linear = [&](auto&& work) {
      require_linear(2000, [&](std::size_t bytes) {
        return [work, text = repeated(unit, bytes)] {
          (void)split_sentences(text);  // searches of libraries are not counted, this is
          work(text);
        };
      });
    };
    linear([&](const std::string& s) { (void)flexible.apply({s}); });
    linear([&](const std::string& s) { (void)letters.extract(s); });
    linear([](const std::string& s) { (void)extract_math(s, {}); });
    linear([](const std::string& s) { (void)math_strip(s); });
    linear([](const std::string& s) { (void)last_boxed(s); });
    linear([](const std::string& s) { (void)word_tokens(s); });
    linear([](const std::string& s) { (void)tokenize_13a(s); });
    linear([](const std::string& s) { (void)rouge_n(s, s, 2, true); });
    linear([](const std::string& s) { (void)normalize_text(s, TextNormalizer::helm); });
  }
}
