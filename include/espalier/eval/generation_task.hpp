// SPDX-License-Identifier: Apache-2.0
// Runs a task that is decided by what the model writes (task_definition.hpp, answer_rule.hpp):
// GSM8K, MATH, IFEval. Generation is greedy. As in lm-evaluation-harness a prompt that leaves no
// room for an answer loses its beginning.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/generation_task.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/core/threads.hpp>
#include <espalier/eval/prompted_task.hpp>

namespace espalier::eval {

class GenerationTask final : public Task {
 public:
  /// @param max_new_tokens 0: as many as the definition says
  GenerationTask(std::string name, Prompts prompts, int max_new_tokens = 0)
      : name_(std::move(name)),
        prompts_(std::move(prompts)),
        max_new_tokens_(max_new_tokens > 0 ? max_new_tokens : definition().limits.max_new_tokens) {}

  const std::string& name() const override { return name_; }
  const Prompts& prompts() const { return prompts_; }

  /// @throws UsageError if the model has no room for an answer of that length
  TaskResult run(const Session& session) override {
    TaskResult result = result_of(name_, prompts_);
    result.generated = true;
    encode(session);
    std::vector<Journal::Question> keys;
    io::Fingerprint all;
    for (std::size_t i = 0; i < prompts_.size(); ++i) {
      io::Fingerprint print;
      print.add(asked_[i].ids).add(static_cast<std::uint64_t>(max_new_tokens_));
      keys.push_back({static_cast<std::int64_t>(prompts_.row(i)), print.text()});
      all.add(keys.back().prompt);
      result.truncated += asked_[i].cut ? 1 : 0;
    }
    Journal journal(journal_path(session, name_), "id", journal_key(session, definition()),
                    std::move(keys), session.resume);
    generate(session, journal);
    journal.finish();
    add_metrics(result, prompts_, [&](const std::vector<std::size_t>& questions) {
      return metrics(journal, questions);
    });
    result.prompts = all.text();
    count(result);
    return result;
  }

 private:
  struct Asked {
    std::vector<std::int32_t> ids;
    bool cut = false;
  };
  const TaskDefinition& definition() const { return prompts_.data().definition; }

  void encode(const Session& session) {
    const std::int64_t room = session.max_length - max_new_tokens_;
    ESP_REQUIRE(room > 0, UsageError, name_, ": the model takes ", session.max_length,
                " tokens, which leaves none for a prompt before ", max_new_tokens_,
                " new tokens; ask for fewer");
    asked_.resize(prompts_.size());
    parallel_for(static_cast<std::int64_t>(prompts_.size()), 16,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t i = begin; i < end; ++i) {
                     const auto k = static_cast<std::size_t>(i);
                     asked_[k] = encode(session, k, static_cast<std::size_t>(room));
                   }
                 });
  }
  Asked encode(const Session& session, std::size_t i, std::size_t room) const {
    Asked asked;
    asked.ids =
        detail::encode_with_one_start(session.encode, session.start, prompts_.context(i, 0));
    if (asked.ids.empty()) asked.ids = {session.start};
    asked.cut = asked.ids.size() > room;
    if (asked.cut) {
      asked.ids.erase(asked.ids.begin(), asked.ids.end() - static_cast<std::ptrdiff_t>(room));
    }
    return asked;
  }

  void generate(const Session& session, Journal& journal) const {
    session.report(name_, journal);
    std::vector<std::vector<std::int32_t>> missing;
    std::vector<std::size_t> members;
    for (std::size_t i = 0; i < prompts_.size(); ++i) {
      if (journal.has(i)) continue;
      missing.push_back(asked_[i].ids);
      members.push_back(i);
    }
    if (missing.empty()) return;
    session.model->generate(missing, max_new_tokens_, definition().limits.stop,
                            [&](std::size_t k, const infer::Completion& completion) {
                              journal.append(members[k], describe(members[k], completion));
                              journal.sync();
                              session.report(name_, journal);
                            });
  }

  io::Json describe(std::size_t i, const infer::Completion& completion) const {
    const Question& q = prompts_.question(i);
    io::Json line = io::Json::object();
    line["text"] = completion.text;
    line["new_tokens"] = completion.ids.size();
    line["prompt_tokens"] = asked_[i].ids.size();
    line["hit_limit"] = completion.hit_limit;
    line["target"] = q.target;
    line["predictions"] = io::Json::object();
    for (const AnswerRule& rule : definition().rules) {
      line["predictions"][rule.metrics()[0]] = rule.prediction(completion.text);
      for (const MetricValues& m : rule.judge(completion.text, q.target, q.row)) {
        line[m.metric] = m.values.size() == 1 ? io::Json(m.values[0]) : io::Json::array(m.values);
      }
    }
    describe_prompt(prompts_, i, asked_[i].cut, line);
    return line;
  }

  /// A metric with several values in an answer is the mean over all values; its error is that of a
  /// ratio, since values of one answer are not independent.
  std::vector<Metric> metrics(const Journal& journal,
                              const std::vector<std::size_t>& questions) const {
    std::vector<Metric> out;
    for (const std::string& name : definition().metrics) {
      std::vector<double> sums, counts;
      bool single = true;
      for (const std::size_t i : questions) {
        const io::Json& value = journal.entry(i).at(name);
        single = single && value.is_number();
        double sum = 0;
        if (value.is_number()) {
          sum = value.as_double();
        } else {
          for (const io::Json& v : value.items()) sum += v.as_double();
        }
        sums.push_back(sum);
        counts.push_back(value.is_number() ? 1 : static_cast<double>(value.items().size()));
      }
      out.push_back({name, single ? mean_of(sums) : ratio_of(sums, counts)});
    }
    return out;
  }

  void count(TaskResult& result) const {
    std::vector<infer::TokenList> prompts;
    for (const Asked& a : asked_) {
      prompts.emplace_back(a.ids);
      result.tokens_asked += std::ssize(a.ids);
    }
    result.tokens_computed = infer::computed_tokens(prompts, infer::prefix_steps(prompts));
  }

  std::string name_;
  Prompts prompts_;
  int max_new_tokens_;
  std::vector<Asked> asked_;
};

}  // namespace espalier::eval
