// SPDX-License-Identifier: Apache-2.0
// Builds the prompt of MMLU-Pro, byte for byte as the reference script does: header, k worked
// examples of the question's category, the question. There is no chat template; the tokenizer adds
// BOS. If the prompt leaves no room for the answer, examples are dropped one by one from the end.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/mmlu_pro_prompt.hpp is host-only; include it from a .cpp"
#endif

#include <map>

#include <espalier/eval/encode_pair.hpp>
#include <espalier/eval/mmlu_pro_question.hpp>

namespace espalier::eval {

struct MmluProLimits {
  int shots = 5;
  int max_new_tokens = 2048;
  int max_length = 4096;  // prompt and answer together
};

struct MmluProPrompt {
  std::vector<std::int32_t> ids;
  int shots = 0;
  bool fits = true;  // false: even without examples there is no room for the whole answer
};

class MmluProPrompts {
 public:
  explicit MmluProPrompts(const MmluProData& data) : header_(data.header) {
    for (const MmluProQuestion& q : data.shots) shots_[q.category].push_back(q);
  }

  std::string text(const MmluProQuestion& q, int shots) const {
    std::string prompt = replaced(header_, "{$}", q.category) + "\n";
    if (const auto own = shots_.find(q.category); own != shots_.end()) {
      for (const MmluProQuestion& shot : own->second) {
        if (shots-- <= 0) break;
        prompt += body(shot);
        prompt += replaced(shot.cot_content, "A: Let's think step by step.", kLead);
        prompt += "\n\n";
      }
    }
    return prompt + body(q) + std::string(kLead);
  }

  /// The reference script loops forever on a question that does not fit without examples. Here such
  /// a question is asked anyway, with `fits` false.
  MmluProPrompt encode(const MmluProQuestion& q, const MmluProLimits& limits,
                       const Encode& encode) const {
    const auto room = static_cast<std::size_t>(limits.max_length - limits.max_new_tokens);
    for (int shots = std::min(limits.shots, available(q.category));; --shots) {
      MmluProPrompt prompt{encode(text(q, shots), true), shots, true};
      if (prompt.ids.size() < room) return prompt;
      prompt.fits = false;
      if (shots <= 0) return prompt;
    }
  }

  /// Number of worked examples of a category.
  int available(const std::string& category) const {
    const auto own = shots_.find(category);
    return own == shots_.end() ? 0 : static_cast<int>(own->second.size());
  }

 private:
  static constexpr std::string_view kLead = "Answer: Let's think step by step.";

  static std::string replaced(std::string text, std::string_view what, std::string_view by) {
    for (std::size_t at = text.find(what); at != text.npos; at = text.find(what, at + by.size())) {
      text.replace(at, what.size(), by);
    }
    return text;
  }
  static std::string body(const MmluProQuestion& q) {
    std::string text = "Question:\n" + q.question + "\nOptions:\n";
    for (std::size_t i = 0; i < q.options.size(); ++i) {
      text += kMmluProLetters[i];
      text += ". " + q.options[i] + "\n";
    }
    return text;
  }

  std::string header_;
  std::map<std::string, std::vector<MmluProQuestion>> shots_;
};

}  // namespace espalier::eval
