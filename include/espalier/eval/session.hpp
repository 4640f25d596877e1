// SPDX-License-Identifier: Apache-2.0
// What every task of one evaluation shares: the model and its name, the tokenizer, where results
// go, and the progress callback.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/session.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <filesystem>

#include <espalier/eval/encode_pair.hpp>
#include <espalier/eval/journal.hpp>
#include <espalier/io/fingerprint.hpp>

namespace espalier::eval {

struct Session {
  infer::LanguageModel* model = nullptr;
  Encode encode;
  std::int32_t start = -1;         // the token that stands for an empty context
  std::int64_t max_length = 4096;  // tokens that the model takes
  std::string model_name;
  std::string fingerprint;
  std::filesystem::path output;
  bool resume = false;
  std::int64_t score_tokens = 4096;  // about so many are scored between two looks at the clock
  /// Called as questions are done; may throw to end the run, which can be resumed.
  std::function<void(const std::string& task, std::size_t done, std::size_t total)> progress;

  void report(const std::string& task, const Journal& journal) const {
    if (progress) progress(task, journal.done(), journal.size());
  }
};

[[nodiscard]] inline std::string prompt_fingerprint(std::span<const infer::Continuation> asked) {
  io::Fingerprint print;
  for (const infer::Continuation& c : asked) print.add(c.context).add(c.continuation);
  return print.text();
}

/// The journal of `task`, named after it: arc_easy.jsonl.
[[nodiscard]] inline std::filesystem::path journal_path(const Session& session, std::string task) {
  std::replace(task.begin(), task.end(), ':', '_');
  return session.output / (task + ".jsonl");
}

/// Scores the questions that the journal lacks, several at a time, and appends what
/// `describe(i, likelihoods of asked[i])` makes of each.
template <class Describe>
void score_missing(const Session& session, const std::string& task, Journal& journal,
                   const std::vector<std::vector<infer::Continuation>>& asked,
                   Describe&& describe) {
  session.report(task, journal);
  for (std::size_t i = 0; i < asked.size();) {
    std::vector<infer::Continuation> batch;
    std::vector<std::size_t> members;
    std::size_t tokens = 0;
    for (; i < asked.size() && tokens < static_cast<std::size_t>(session.score_tokens); ++i) {
      if (journal.has(i)) continue;
      members.push_back(i);
      for (const infer::Continuation& c : asked[i]) {
        tokens += c.context.size() + c.continuation.size();
        batch.push_back(c);
      }
    }
    if (members.empty()) break;
    const std::vector<infer::Likelihood> found = session.model->score(batch);
    auto next = found.begin();
    for (const std::size_t m : members) {
      const auto count = static_cast<std::ptrdiff_t>(asked[m].size());
      journal.append(m, describe(m, std::span<const infer::Likelihood>(next, next + count)));
      next += count;
    }
    session.report(task, journal);
  }
}

}  // namespace espalier::eval
