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
#include <espalier/infer/prefix_steps.hpp>
#include <espalier/io/fingerprint.hpp>

namespace espalier::eval {

struct Session {
  infer::LanguageModel* model = nullptr;
  Encode encode;
  std::int32_t start = -1;         // replaces an empty context: BOS, or else EOS
  std::int64_t max_length = 4096;  // of the model, in tokens
  std::string model_name;
  std::string fingerprint;  // of the weights
  /// What the bits of an answer depend on besides the weights, in words: "espalier 0.1.0, f32, cpu
  /// avx2, tokenizer 8c1d...".
  std::string computed_by;
  std::filesystem::path output;
  bool resume = false;
  std::int64_t score_tokens = 4096;  // computed between two progress reports, about
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

/// Scores the questions that the journal lacks, in the order of their prompts, so that shared
/// beginnings are computed once, and appends `describe(i, likelihoods of asked[i])` for each.
template <class Describe>
void score_missing(const Session& session, const std::string& task, Journal& journal,
                   const std::vector<std::vector<infer::Continuation>>& asked,
                   Describe&& describe) {
  session.report(task, journal);
  std::vector<std::size_t> missing;
  for (std::size_t i = 0; i < asked.size(); ++i) {
    if (!journal.has(i)) missing.push_back(i);
  }
  // A question without anything to score stands first.
  const auto context = [&](std::size_t i) {
    return asked[i].empty() ? infer::TokenList() : infer::TokenList(asked[i][0].context);
  };
  std::stable_sort(missing.begin(), missing.end(), [&](std::size_t a, std::size_t b) {
    return std::ranges::lexicographical_compare(context(a), context(b));
  });
  for (std::size_t next = 0; next < missing.size();) {
    std::vector<infer::Continuation> batch;
    std::vector<std::size_t> members;
    std::int64_t tokens = 0;
    infer::TokenList before;
    for (; next < missing.size() && tokens < session.score_tokens; ++next) {
      members.push_back(missing[next]);
      for (const infer::Continuation& c : asked[missing[next]]) {
        tokens += std::ssize(c.context) - infer::common_prefix(before, c.context);
        tokens += std::ssize(c.continuation);
        before = c.context;
        batch.push_back(c);
      }
    }
    const std::vector<infer::Likelihood> found = session.model->score(batch);
    auto at = found.begin();
    for (const std::size_t m : members) {
      const auto count = static_cast<std::ptrdiff_t>(asked[m].size());
      journal.append(m, describe(m, std::span<const infer::Likelihood>(at, at + count)));
      at += count;
    }
    journal.sync();
    session.report(task, journal);
  }
}

/// Tokens of all prompts and continuations, and those that a walk over their trie computes: the
/// last token of a continuation is not run.
struct TokenCounts {
  std::int64_t asked = 0, computed = 0;
};
[[nodiscard]] inline TokenCounts count_tokens(
    const std::vector<std::vector<infer::Continuation>>& asked) {
  TokenCounts count;
  std::vector<infer::TokenList> contexts;
  for (const auto& question : asked) {
    for (const infer::Continuation& c : question) {
      count.asked += std::ssize(c.context) + std::ssize(c.continuation);
      count.computed += std::max<std::int64_t>(std::ssize(c.continuation) - 1, 0);
      contexts.emplace_back(c.context);
    }
  }
  std::ranges::sort(contexts,
                    [](auto a, auto b) { return std::ranges::lexicographical_compare(a, b); });
  const auto repeated =
      std::ranges::unique(contexts, [](auto a, auto b) { return std::ranges::equal(a, b); });
  contexts.erase(repeated.begin(), repeated.end());
  count.computed += infer::computed_tokens(contexts, infer::prefix_steps(contexts));
  return count;
}

}  // namespace espalier::eval
