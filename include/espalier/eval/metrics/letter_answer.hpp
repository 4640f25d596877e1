// SPDX-License-Identifier: Apache-2.0
// The letter that a generated answer chooses, as LightEval's gpqa_instruct_metric and
// pass_at_k_letters extract it. Patterns in order of priority; X is a letter, or one in brackets:
//   "final answer is X. I hope";  "final answer ... is X";  "answer: ... X";  "answer ... X";
//   X at the begin;  X at the begin of a line
// where X but for the first two stands after a space or at the begin, perhaps bold, and before
// punctuation, a space or the end. If asked then also such an X anywhere, and then any X. Of
// several matches of one priority the one that ends last counts.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/letter_answer.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <string_view>
#include <vector>

#include <espalier/core/inline.hpp>
#include <espalier/eval/metrics/python_regex.hpp>

namespace espalier::eval::metrics {

class LetterAnswer {
 public:
  /// @param choices letters from A on that are an answer, 1 to 26
  /// @param anywhere look also for a letter without such words (gpqa does)
  /// @throws UsageError unless there are 1 to 26 choices
  LetterAnswer(std::size_t choices, bool anywhere);

  /// The letter, or 0 where none is found.
  [[nodiscard]] char extract(std::string_view text) const;
  /// 1 if the prediction's letter is the gold's. A gold without a letter matches nothing.
  [[nodiscard]] double operator()(std::string_view gold, std::string_view prediction) const;

 private:
  std::vector<PythonRegex> patterns_;
};

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <string>

#include <espalier/core/error.hpp>

namespace espalier::eval::metrics {

ESP_INLINE LetterAnswer::LetterAnswer(std::size_t choices, bool anywhere) {
  ESP_REQUIRE(choices >= 1 && choices <= 26, UsageError, "a letter is one of 1 to 26 choices, not ",
              choices);
  const std::string range = {'[', 'A', '-', static_cast<char>('A' + choices - 1), ']'};
  const std::string letter = "(" + range + "|\\(" + range + "\\))";
  const std::string after = R"((?:\*\*)?(?:[.,]|\s?:| |$))";
  const std::string alone = R"((?:^| )(?:\*\*)?)" + letter + after;
  for (const std::string& pattern :
       {R"((?i:final answer is):?\s*)" + letter + R"(\.?\s?I hope)",
        R"((?i:final answer.{0,100}?)\s+is:?\s*)" + letter, R"((?i:answer)\s?:.{0,50}?)" + alone,
        "(?i:answer).{0,50}?" + alone, R"(^(?:\*\*)?)" + letter + after,
        R"(\n(?:\*\*)?)" + letter + after}) {
    patterns_.emplace_back(pattern, "letters of answers");
  }
  if (!anywhere) return;
  patterns_.emplace_back(alone, "letters of answers");
  patterns_.emplace_back(letter, "letters of answers");
}

ESP_INLINE char LetterAnswer::extract(std::string_view text) const {
  const std::string valid = valid_text(text);
  for (const PythonRegex& pattern : patterns_) {
    // Matches do not overlap: the last one also ends last.
    const std::vector<PythonRegex::Match> matches = pattern.find_all(valid);
    if (matches.empty()) continue;
    const std::string_view letter = matches.back().groups[0];
    return letter.size() == 1 ? letter[0] : letter[1];
  }
  return 0;
}

ESP_INLINE double LetterAnswer::operator()(std::string_view gold,
                                           std::string_view prediction) const {
  const char letter = extract(gold);
  return letter != 0 && extract(prediction) == letter ? 1 : 0;
}

}  // namespace espalier::eval::metrics
#endif
