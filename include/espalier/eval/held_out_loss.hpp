// SPDX-License-Identifier: Apache-2.0
// Task `loss`: the mean of -log p over all targets of held-out text. Lines and targets are those of
// training data (data/records.hpp), so a text weighs as much as it has targets.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/held_out_loss.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/data/batches.hpp>
#include <espalier/eval/multiple_choice.hpp>

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

/// Scores the first `limit` examples (-1: all). The journal loss.jsonl gets a line for each.
[[nodiscard]] inline TaskResult held_out_loss(const Session& session,
                                              const std::vector<data::Example>& examples,
                                              std::int64_t limit = -1) {
  const std::size_t count =
      limit < 0 ? examples.size() : std::min(examples.size(), static_cast<std::size_t>(limit));
  std::vector<std::vector<infer::Continuation>> asked;
  std::vector<Journal::Question> keys;
  io::Fingerprint all;
  for (std::size_t i = 0; i < count; ++i) {
    asked.push_back(continuations_of(examples[i]));
    keys.push_back({static_cast<std::int64_t>(i), prompt_fingerprint(asked[i])});
    all.add(keys.back().prompt);
  }
  Journal journal(journal_path(session, "loss"), "id", session.fingerprint, std::move(keys),
                  session.resume);
  score_missing(session, "loss", journal, asked, [&](std::size_t i, auto found) {
    double sum = 0;
    for (const infer::Likelihood& l : found) sum += l.log_prob;
    io::Json line = io::Json::object();
    line["logprob"] = sum;
    line["tokens"] = examples[i].targets();
    return line;
  });
  journal.finish();
  std::vector<double> losses, targets;
  for (std::size_t i = 0; i < count; ++i) {
    losses.push_back(-journal.entry(i).at("logprob").as_double());
    targets.push_back(journal.entry(i).at("tokens").as_double());
  }
  const Estimate loss = ratio_of(losses, targets);
  const double ppl = std::exp(loss.value);
  return {"loss",
          0,
          count,
          examples.size(),
          {{"loss", loss}, {"ppl", {ppl, ppl * loss.standard_error}}},
          all.text()};
}

}  // namespace espalier::eval
