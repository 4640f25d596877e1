// SPDX-License-Identifier: Apache-2.0
// Runs a task that is decided by likelihood (task_definition.hpp): which choice follows best, or is
// the next word the most likely one.
// acc: the largest sum of log p; of one choice, whether it is the greedy continuation. acc_norm:
// the largest sum per character of the choice; acc_bytes: per byte of UTF-8. mc2: the share of
// probability on what is true. ppl: the perplexity of a whole continuation, as LAMBADA counts it.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/multiple_choice.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cmath>

#include <espalier/core/threads.hpp>
#include <espalier/eval/prompted_task.hpp>

namespace espalier::eval {

/// The choice with the largest sum of log p, divided by its `length` where there are some. Among
/// equals the first one counts, as in numpy.argmax.
[[nodiscard]] inline std::size_t best_choice(std::span<const double> log_probs,
                                             std::span<const std::size_t> lengths = {}) {
  std::vector<double> sums(log_probs.begin(), log_probs.end());
  for (std::size_t i = 0; i < lengths.size(); ++i) sums[i] /= static_cast<double>(lengths[i]);
  return static_cast<std::size_t>(std::max_element(sums.begin(), sums.end()) - sums.begin());
}

/// mc2 of TruthfulQA: of the probability of all choices, the part on those that are true.
[[nodiscard]] inline double true_share(std::span<const double> log_probs,
                                       const std::vector<bool>& truth) {
  const double largest = *std::max_element(log_probs.begin(), log_probs.end());
  double good = 0, all = 0;
  for (std::size_t i = 0; i < log_probs.size(); ++i) {
    const double p = std::exp(log_probs[i] - largest);
    all += p;
    if (truth[i]) good += p;
  }
  return good / all;
}

class ChoiceTask final : public Task {
 public:
  ChoiceTask(std::string name, Prompts prompts)
      : name_(std::move(name)), prompts_(std::move(prompts)) {}

  const std::string& name() const override { return name_; }
  const Prompts& prompts() const { return prompts_; }

  /// Encodes context and continuation of every choice of question `i`. `cut` tells whether one was
  /// longer than what the model takes.
  std::vector<infer::Continuation> ask(const Session& session, std::size_t i, bool& cut) const {
    const Question& q = prompts_.question(i);
    std::vector<infer::Continuation> asked;
    for (std::size_t c = 0; c < q.size(); ++c) {
      try {
        asked.push_back(encode_pair(session.encode, session.start, prompts_.context(i, c),
                                    prompts_.continuation(i, c)));
        if (cut_left(asked.back(), session.max_length)) cut = true;
      } catch (const FormatError& e) {
        throw FormatError(espalier::detail::concat(
            {name_, ": row ", prompts_.row(i) + 1, ", choice ", c + 1, ": ", e.what()}));
      }
    }
    return asked;
  }

  TaskResult run(const Session& session) override {
    TaskResult result = result_of(name_, prompts_);
    std::vector<std::vector<infer::Continuation>> asked(prompts_.size());
    std::vector<char> cut(prompts_.size());
    parallel_for(static_cast<std::int64_t>(prompts_.size()), 16,
                 [&](std::int64_t begin, std::int64_t end) {
                   for (std::int64_t i = begin; i < end; ++i) {
                     const auto k = static_cast<std::size_t>(i);
                     bool is_cut = false;
                     asked[k] = ask(session, k, is_cut);
                     cut[k] = is_cut ? 1 : 0;
                   }
                 });
    std::vector<Journal::Question> keys;
    io::Fingerprint all;
    for (std::size_t i = 0; i < prompts_.size(); ++i) {
      keys.push_back({static_cast<std::int64_t>(prompts_.row(i)), prompt_fingerprint(asked[i])});
      all.add(keys.back().prompt);
      result.truncated += cut[i] != 0 ? 1 : 0;
    }
    Journal journal(journal_path(session, name_), "id",
                    journal_key(session, prompts_.data().definition), std::move(keys),
                    session.resume);
    score_missing(session, name_, journal, asked, [&](std::size_t i, auto found) {
      return describe(i, asked[i], cut[i] != 0, found);
    });
    journal.finish();
    add_metrics(result, prompts_, [&](const std::vector<std::size_t>& questions) {
      return metrics(journal, questions);
    });
    result.prompts = all.text();
    const TokenCounts tokens = count_tokens(asked);
    result.tokens_asked = tokens.asked;
    result.tokens_computed = tokens.computed;
    return result;
  }

 private:
  /// A line of the journal: the question as it was asked, and what was found.
  io::Json describe(std::size_t i, const std::vector<infer::Continuation>& asked, bool cut,
                    std::span<const infer::Likelihood> found) const {
    const Question& q = prompts_.question(i);
    io::Json line = io::Json::object();
    std::vector<double> log_probs;
    io::Json tokens = io::Json::array(), greedy = io::Json::array();
    for (std::size_t c = 0; c < found.size(); ++c) {
      log_probs.push_back(found[c].log_prob);
      tokens.push_back(asked[c].continuation.size());
      greedy.push_back(found[c].greedy);
    }
    line["logprobs"] = io::Json::array(log_probs);
    line["tokens"] = tokens;
    line["greedy"] = greedy;
    if (q.size() == 1) {
      line["acc"] = found[0].greedy ? 1 : 0;
    } else if (!q.truth.empty()) {
      line["mc2"] = true_share(log_probs, q.truth);
    } else {
      judge(q, log_probs, line);
    }
    describe_prompt(prompts_, i, cut, line);
    line["continuations"] = io::Json::array();
    for (std::size_t c = 0; c < q.continuations.size(); ++c) {
      line["continuations"].push_back(prompts_.continuation(i, c));
    }
    return line;
  }

  void judge(const Question& q, const std::vector<double>& log_probs, io::Json& line) const {
    const std::size_t best = best_choice(log_probs);
    line["gold"] = q.gold;
    line["prediction"] = best;
    line["acc"] = best == q.gold ? 1 : 0;
    std::vector<std::size_t> characters, bytes;
    for (const std::string& choice : q.choices) {
      characters.push_back(count_characters(choice));
      bytes.push_back(choice.size());
    }
    if (has_metric("acc_norm")) {
      line["acc_norm"] = best_choice(log_probs, characters) == q.gold ? 1 : 0;
    }
    if (has_metric("acc_bytes")) {
      line["acc_bytes"] = best_choice(log_probs, bytes) == q.gold ? 1 : 0;
    }
  }

  bool has_metric(std::string_view name) const {
    const std::vector<std::string>& all = prompts_.data().definition.metrics;
    return std::count(all.begin(), all.end(), name) > 0;
  }
  std::vector<Metric> metrics(const Journal& journal,
                              const std::vector<std::size_t>& questions) const {
    std::vector<Metric> out;
    for (const char* name : {"acc", "acc_norm", "acc_bytes", "mc2"}) {
      if (questions.empty() || journal.entry(questions[0]).find(name) == nullptr) continue;
      std::vector<double> hits;
      for (const std::size_t i : questions) {
        hits.push_back(journal.entry(i).at(name).as_double());
      }
      out.push_back({name, mean_of(hits)});
    }
    if (has_metric("ppl")) {
      std::vector<double> sums;
      for (const std::size_t i : questions) {
        sums.push_back(journal.entry(i).at("logprobs").at(0).as_double());
      }
      out.push_back({"ppl", perplexity_of(sums)});
    }
    return out;
  }

  std::string name_;
  Prompts prompts_;
};

}  // namespace espalier::eval
