// SPDX-License-Identifier: Apache-2.0
// Task `loss`: the mean of -log p over all targets of held-out text. Lines and targets are those of
// training data (data/records.hpp), so a text weighs as much as it has targets.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/held_out_loss.hpp is host-only; include it from a .cpp"
#endif

#include <cmath>

#include <espalier/data/batches.hpp>
#include <espalier/eval/task.hpp>

namespace espalier::eval {

/// Splits an example into continuations: one per run of targets, with all earlier tokens as
/// context.
[[nodiscard]] inline std::vector<infer::Continuation> continuations_of(
    const data::Example& example) {
  std::vector<infer::Continuation> out;
  const auto& ids = example.ids;
  for (std::size_t i = 1; i < ids.size();) {
    std::size_t end = i;
    while (end < ids.size() && example.is_target[end] != 0) ++end;
    if (end > i) {
      const auto at = ids.begin() + static_cast<std::ptrdiff_t>(i);
      out.push_back({{ids.begin(), at}, {at, ids.begin() + static_cast<std::ptrdiff_t>(end)}});
    }
    i = end + 1;
  }
  return out;
}

class LossTask final : public Task {
 public:
  /// Scores the first `limit` examples (-1: all). The journal loss.jsonl gets a line for each.
  explicit LossTask(std::vector<data::Example> examples, std::int64_t limit = -1)
      : examples_(std::move(examples)), all_(examples_.size()) {
    if (limit >= 0 && static_cast<std::size_t>(limit) < all_) {
      examples_.resize(static_cast<std::size_t>(limit));
    }
  }

  const std::string& name() const override { return name_; }

  TaskResult run(const Session& session) override {
    std::vector<std::vector<infer::Continuation>> asked;
    std::vector<Journal::Question> keys;
    io::Fingerprint all;
    for (std::size_t i = 0; i < examples_.size(); ++i) {
      asked.push_back(continuations_of(examples_[i]));
      keys.push_back({static_cast<std::int64_t>(i), prompt_fingerprint(asked[i])});
      all.add(keys.back().prompt);
    }
    Journal journal(journal_path(session, name_), "id",
                    {name_, session.fingerprint, session.computed_by}, std::move(keys),
                    session.resume);
    score_missing(session, name_, journal, asked, [&](std::size_t i, auto found) {
      double sum = 0;
      for (const infer::Likelihood& l : found) sum += l.log_prob;
      io::Json line = io::Json::object();
      line["logprob"] = sum;
      line["tokens"] = examples_[i].targets();
      return line;
    });
    journal.finish();
    TaskResult result;
    result.task = name_;
    result.documents = examples_.size();
    result.original_documents = all_;
    result.metrics = metrics(journal);
    result.prompts = all.text();
    const TokenCounts tokens = count_tokens(asked);
    result.tokens_asked = tokens.asked;
    result.tokens_computed = tokens.computed;
    return result;
  }

 private:
  std::vector<Metric> metrics(const Journal& journal) const {
    std::vector<double> losses, targets;
    for (std::size_t i = 0; i < journal.size(); ++i) {
      losses.push_back(-journal.entry(i).at("logprob").as_double());
      targets.push_back(journal.entry(i).at("tokens").as_double());
    }
    const Estimate loss = ratio_of(losses, targets);
    const double ppl = std::exp(loss.value);
    return {{"loss", loss}, {"ppl", {ppl, ppl * loss.standard_error}}};
  }

  std::string name_ = "loss";
  std::vector<data::Example> examples_;
  std::size_t all_;
};

}  // namespace espalier::eval
