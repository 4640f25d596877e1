// SPDX-License-Identifier: Apache-2.0
// The state that all tasks of an evaluation share: the model and its name, the tokenizer, the
// output folder, and the progress callback.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/session.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <filesystem>

#include <espalier/eval/encode_pair.hpp>
#include <espalier/eval/file_name.hpp>
#include <espalier/eval/journal.hpp>
#include <espalier/io/fingerprint.hpp>

namespace espalier::eval {

struct Session {
  infer::LanguageModel* model = nullptr;
  Encode encode;
  std::int32_t start = -1;         // replaces an empty context: BOS, or else EOS
  std::int64_t max_length = 4096;  // of the model, in tokens
  std::string model_name;
  std::string fingerprint;
  std::filesystem::path output;
  bool resume = false;
  std::int64_t score_tokens = 4096;  // scored between two progress reports, about
  /// Called after questions are answered. May throw to end the run, which can be resumed.
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

/// Path of the journal of `task`: arc_easy.jsonl for arc:easy.
[[nodiscard]] inline std::filesystem::path journal_path(const Session& session, std::string task) {
  std::replace(task.begin(), task.end(), ':', '_');
  return session.output / (file_name_of(task) + ".jsonl");
}

/// Scores the questions that the journal lacks, in batches, and appends
/// `describe(i, likelihoods of asked[i])` for each.
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
