// SPDX-License-Identifier: Apache-2.0
// The whole text that a question is asked with: a description, worked examples, the question;
// plain, or as a conversation in the model's chat format. Examples and conversations are those of
// lm-evaluation-harness: --fewshot_as_multiturn is `turns`, and without it the examples stand in
// the same message as the question.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/prompts.hpp is host-only; include it from a .cpp"
#endif

#include <functional>
#include <string>
#include <vector>

#include <espalier/eval/task_files.hpp>
#include <espalier/text/chat_template.hpp>

namespace espalier::eval {

struct PromptOptions {
  int shots = -1;            // worked examples; -1: as many as the task's definition says
  std::int64_t seed = 1234;  // of their choice; lm-evaluation-harness's own
  std::int64_t limit = -1;   // the first so many questions (of each part); -1: every one
  /// Renders a conversation up to the model's turn; empty: plain text.
  std::function<std::string(const std::vector<text::Message>&)> chat = {};
  std::string chat_name = "none";
  std::string system = {};  // a message, or in plain text what stands first
  bool turns = false;       // worked examples as turns of the conversation
};

/// The questions of a task that are asked, each with its worked examples.
class Prompts {
 public:
  /// @throws UsageError if there are fewer examples to choose from than wanted
  Prompts(std::string task, TaskData data, PromptOptions options);

  std::size_t size() const { return asked_.size(); }
  const TaskData& data() const { return data_; }
  const PromptOptions& options() const { return options_; }
  int shots() const { return options_.shots; }
  const Question& question(std::size_t i) const { return data_.questions[asked_[i]]; }
  /// Position of a question among all rows.
  std::size_t row(std::size_t i) const { return asked_[i]; }

  /// The whole context of a choice of question `i`.
  [[nodiscard]] std::string context(std::size_t i, std::size_t choice) const;
  /// A choice as it follows the context: without delimiter in a conversation.
  [[nodiscard]] std::string continuation(std::size_t i, std::size_t choice) const;
  /// What shapes all prompts beside their questions, such as "none" or "chatml, shots as turns".
  [[nodiscard]] std::string form() const;

 private:
  void select();
  void draw_shots();
  std::string chat_context(std::size_t i, std::size_t choice) const;
  std::string without_delimiter(const std::string& continuation) const;

  std::string task_;
  TaskData data_;
  PromptOptions options_;
  std::vector<std::size_t> asked_;
  std::vector<std::vector<const Question*>> shots_;
};

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <algorithm>
#include <map>

#include <espalier/eval/python_random.hpp>

namespace espalier::eval {

ESP_INLINE Prompts::Prompts(std::string task, TaskData data, PromptOptions options)
    : task_(std::move(task)), data_(std::move(data)), options_(std::move(options)) {
  if (options_.shots < 0) options_.shots = data_.definition.shots;
  select();
  draw_shots();
}

ESP_INLINE void Prompts::select() {
  std::map<std::string, std::int64_t> taken;
  for (std::size_t i = 0; i < data_.questions.size(); ++i) {
    std::int64_t& count = taken[data_.questions[i].part];
    if (options_.limit >= 0 && count >= options_.limit) continue;
    ++count;
    asked_.push_back(i);
  }
}

namespace detail {

using QuestionList = std::vector<const Question*>;

/// As lm-evaluation-harness draws: from examples of their own where there are some, else from the
/// questions, never one that equals the asked one.
class ShotSampler {
 public:
  ShotSampler(const std::string& task, const TaskData& data, const PromptOptions& options)
      : task_(task),
        data_(data),
        count_(static_cast<std::uint32_t>(options.shots)),
        random_(static_cast<std::uint64_t>(options.seed)) {
    for (const Question& q : apart() ? data.shots : data.questions) pools_[q.part].push_back(&q);
  }

  QuestionList draw(const Question& asked) {
    const QuestionList& pool = pools_[asked.part];
    const auto is_asked = [&](const Question* q) { return *q == asked; };
    QuestionList drawn;
    if (pool.size() >= count_ + (apart() ? 0U : 1U)) {
      drawn = sample(pool, apart() ? count_ : count_ + 1);
      std::erase_if(drawn, is_asked);
    }
    if (drawn.size() < count_) {
      QuestionList others = pool;
      std::erase_if(others, is_asked);
      ESP_REQUIRE(others.size() >= count_, UsageError, task_, ": ", count_, " shots, there are ",
                  others.size(), " to choose from", asked.part.empty() ? "" : " for ", asked.part);
      drawn = sample(others, count_);
    }
    drawn.resize(count_);
    return drawn;
  }

 private:
  bool apart() const { return !data_.shots.empty(); }
  QuestionList sample(const QuestionList& pool, std::uint32_t n) {
    if (data_.definition.first_shots) {
      return {pool.begin(), pool.begin() + static_cast<std::ptrdiff_t>(n)};
    }
    QuestionList drawn;
    for (const std::uint32_t k : random_.sample(static_cast<std::uint32_t>(pool.size()), n)) {
      drawn.push_back(pool[k]);
    }
    return drawn;
  }

  const std::string& task_;
  const TaskData& data_;
  std::uint32_t count_;
  PythonRandom random_;
  std::map<std::string, QuestionList> pools_;
};

/// Texts with a blank line between them, which a text may bring itself.
inline std::string delimited(const std::string& a, const std::string& b) {
  if (a.empty() || b.empty()) return a + b;
  const bool brings = text::is_space(static_cast<unsigned char>(a.back())) ||
                      text::is_space(static_cast<unsigned char>(b.front()));
  return a + (brings ? "" : "\n\n") + b;
}

}  // namespace detail

ESP_INLINE void Prompts::draw_shots() {
  shots_.resize(asked_.size());
  if (options_.shots == 0) return;
  ESP_REQUIRE(data_.definition.form != TaskForm::text, UsageError, task_,
              ": the perplexity of a text has no worked examples");
  detail::ShotSampler sampler(task_, data_, options_);
  for (std::size_t i = 0; i < asked_.size(); ++i) shots_[i] = sampler.draw(question(i));
}

ESP_INLINE std::string Prompts::without_delimiter(const std::string& continuation) const {
  return continuation.substr(data_.definition.delimiter.size());
}

ESP_INLINE std::string Prompts::context(std::size_t i, std::size_t choice) const {
  const Question& q = question(i);
  if (options_.chat) return chat_context(i, choice);
  std::string text = detail::delimited(options_.system, q.description);
  for (const Question* shot : shots_[i]) text += shot->solved() + "\n\n";
  return text + q.context(choice);
}

ESP_INLINE std::string Prompts::chat_context(std::size_t i, std::size_t choice) const {
  const Question& q = question(i);
  std::vector<text::Message> messages;
  const std::string system = detail::delimited(options_.system, q.description);
  if (!system.empty()) messages.push_back({"system", system});
  std::string before;
  for (const Question* shot : shots_[i]) {
    if (options_.turns) {
      messages.push_back({"user", shot->context(shot->gold)});
      messages.push_back({"assistant", without_delimiter(shot->continuation(shot->gold))});
    } else {
      before += shot->solved() + "\n\n";
    }
  }
  messages.push_back({"user", before + q.context(choice)});
  return options_.chat(messages);
}

ESP_INLINE std::string Prompts::continuation(std::size_t i, std::size_t choice) const {
  const std::string& text = question(i).continuation(choice);
  return options_.chat ? without_delimiter(text) : text;
}

ESP_INLINE std::string Prompts::form() const {
  std::string form = options_.chat_name;
  if (options_.chat && options_.turns && options_.shots > 0) form += ", shots as turns";
  if (!options_.system.empty()) form += ", system prompt: " + options_.system;
  return form;
}

}  // namespace espalier::eval
#endif
