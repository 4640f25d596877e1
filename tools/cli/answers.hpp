// SPDX-License-Identifier: Apache-2.0
// Generated texts as JSON, and the lines of a file of prompts in its order.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <espalier/infer/chat.hpp>
#include <espalier/infer/language_model.hpp>
#include <espalier/io/file.hpp>
#include <espalier/io/json.hpp>
#include <espalier/io/output_lock.hpp>

#include "cli/print.hpp"

namespace espalier {

/// {"id", "token", "log_prob", "best": [{"id", "token", "log_prob"}, ...]}: the natural logarithm
/// of the model's own probability, before any filter of sampling.
[[nodiscard]] inline io::Json to_json(const infer::ChosenToken& token,
                                      const text::Tokenizer& tokenizer) {
  const auto one = [&](const infer::TokenLogProb& p) {
    io::Json j = io::Json::object();
    j["id"] = p.id;
    if (tokenizer.has_token(p.id)) j["token"] = tokenizer.token(p.id);
    j["log_prob"] = p.log_prob;
    return j;
  };
  io::Json j = one(token.log_probs.at(0));
  j["best"] = io::Json::array();
  for (std::size_t i = 1; i < token.log_probs.size(); ++i) {
    j["best"].push_back(one(token.log_probs[i]));
  }
  return j;
}

/// "ids", "text", "finish_reason", "prompt_tokens", and "logprobs" where they were asked for.
[[nodiscard]] inline io::Json to_json(const infer::Answer& answer,
                                      const text::Tokenizer& tokenizer) {
  io::Json j = io::Json::object();
  j["ids"] = io::Json::array();
  for (const infer::ChosenToken& token : answer.tokens) j["ids"].push_back(token.id);
  j["text"] = answer.text;
  j["finish_reason"] = infer::name_of(answer.end);
  j["prompt_tokens"] = answer.prompt_tokens;
  for (const infer::ChosenToken& token : answer.tokens) {
    if (!token.log_probs.empty()) j["logprobs"].push_back(to_json(token, tokenizer));
  }
  return j;
}

[[nodiscard]] inline io::Json to_json(const infer::Completion& completion,
                                      std::size_t prompt_tokens) {
  io::Json j = io::Json::object();
  j["ids"] = io::Json::array(completion.ids);
  j["text"] = completion.text;
  j["finish_reason"] = completion.hit_limit ? "length" : "stop";
  j["prompt_tokens"] = prompt_tokens;
  return j;
}

/// JSON lines that come in any order and are written in the order of their numbers: to standard
/// output as soon as all earlier ones are there, or to a file, which appears when it is complete.
class OrderedLines {
 public:
  /// `path`: empty for standard output.
  explicit OrderedLines(const std::string& path) {
    if (path.empty()) return;
    lock_ = std::make_unique<io::OutputLock>(path);
    file_ = std::make_unique<io::AtomicFile>(path);
  }

  void add(std::size_t number, const io::Json& line) {
    waiting_[number] = io::dump(line) + "\n";
    for (auto it = waiting_.begin(); it != waiting_.end() && it->first == next_; ++next_) {
      if (file_) {
        file_->write(it->second);
      } else {
        print("{}", it->second);
        std::fflush(stdout);
      }
      it = waiting_.erase(it);
    }
  }
  void commit() {
    if (file_) file_->commit();
  }

 private:
  std::unique_ptr<io::OutputLock> lock_;
  std::unique_ptr<io::AtomicFile> file_;
  std::map<std::size_t, std::string> waiting_;
  std::size_t next_ = 0;
};

}  // namespace espalier
