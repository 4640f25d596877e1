// SPDX-License-Identifier: Apache-2.0
// Runs a task that is decided by likelihood (task_definition.hpp): which choice follows best, or is
// the next word the most likely one.
// acc: the largest sum of log p; of one choice, whether it is the greedy continuation. acc_norm:
// the largest sum per character of the choice. mc2: the share of probability on what is true. ppl:
// the perplexity of a whole continuation, as LAMBADA counts it.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/multiple_choice.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cmath>

#include <espalier/eval/python_random.hpp>
#include <espalier/eval/session.hpp>
#include <espalier/eval/statistics.hpp>
#include <espalier/eval/task_files.hpp>

namespace espalier::eval {

/// Whether a question was answered right, by each measure.
struct ChoiceVerdict {
  bool acc = false, acc_norm = false;
};
/// Judges a question by its choices. Among equals the first one counts, as in numpy.argmax.
[[nodiscard]] inline ChoiceVerdict judge_choices(std::span<const double> log_probs,
                                                 std::span<const std::size_t> characters,
                                                 std::size_t gold) {
  const auto best = [](const std::vector<double>& v) {
    return static_cast<std::size_t>(std::max_element(v.begin(), v.end()) - v.begin());
  };
  std::vector<double> sums(log_probs.begin(), log_probs.end()), normalized = sums;
  for (std::size_t i = 0; i < characters.size(); ++i) {
    normalized[i] /= static_cast<double>(characters[i]);
  }
  return {best(sums) == gold, best(normalized) == gold};
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

struct ChoiceOptions {
  int shots = 0;
  std::int64_t limit = -1;   // the first so many questions; -1: every one
  std::int64_t seed = 1234;  // of the choice of worked examples; lm-evaluation-harness's own
};

/// One metric of a task's results.
struct Metric {
  std::string name;
  Estimate estimate;
};

struct TaskResult {
  std::string task;
  int shots = 0;
  std::size_t documents = 0, original_documents = 0;
  std::vector<Metric> metrics;
  std::string prompts;        // fingerprint of everything that was asked
  std::size_t truncated = 0;  // questions that were cut to what the model takes
  std::string id = {};        // of the definition, NAME@VERSION
  TaskSource source = {};     // of the rows
};

class ChoiceTask {
 public:
  ChoiceTask(std::string name, ChoiceData data, ChoiceOptions options)
      : name_(std::move(name)), data_(std::move(data)), options_(options) {
    const std::size_t all = data_.questions.size();
    count_ = options_.limit < 0 ? all : std::min(all, static_cast<std::size_t>(options_.limit));
    const std::size_t pool = data_.shots.empty() ? all - 1 : data_.shots.size();
    ESP_REQUIRE(options_.shots >= 0 && static_cast<std::size_t>(options_.shots) <= pool, UsageError,
                name_, ": ", options_.shots, " shots, there are ", pool, " to choose from");
  }

  const std::string& name() const { return name_; }

  /// Encodes context and continuation of every choice of question `i`, with `prefix` in front.
  std::vector<infer::Continuation> ask(const Session& session, std::size_t i,
                                       const std::string& prefix, bool& cut) const {
    const ChoiceQuestion& q = data_.questions[i];
    std::vector<infer::Continuation> asked;
    for (std::size_t c = 0; c < q.size(); ++c) {
      asked.push_back(
          encode_pair(session.encode, session.start, prefix + q.context(c), q.continuation(c)));
      if (cut_left(asked.back(), session.max_length)) cut = true;
    }
    return asked;
  }

  /// Worked examples for each question, drawn as lm-evaluation-harness does: from the training rows
  /// where there are some, else from the questions, never one that equals the asked one.
  std::vector<std::string> prefixes() const {
    std::vector<std::string> out(count_);
    if (options_.shots == 0) return out;
    PythonRandom random(static_cast<std::uint64_t>(options_.seed));
    const auto count = static_cast<std::uint32_t>(options_.shots);
    for (std::size_t i = 0; i < count_; ++i) {
      for (const ChoiceQuestion* shot : draw(random, count, data_.questions[i])) {
        out[i] += shot->solved() + "\n\n";
      }
    }
    return out;
  }

  TaskResult run(const Session& session) {
    const std::vector<std::string> shots = prefixes();
    std::vector<std::vector<infer::Continuation>> asked;
    std::vector<Journal::Question> keys;
    io::Fingerprint all;
    std::size_t truncated = 0;
    for (std::size_t i = 0; i < count_; ++i) {
      bool cut = false;
      asked.push_back(ask(session, i, shots[i], cut));
      truncated += cut ? 1 : 0;
      keys.push_back({static_cast<std::int64_t>(i), prompt_fingerprint(asked[i])});
      all.add(keys.back().prompt);
    }
    Journal journal(journal_path(session, name_), "id", session.fingerprint, std::move(keys),
                    session.resume);
    score_missing(session, name_, journal, asked, [&](std::size_t i, auto found) {
      return describe(data_.questions[i], asked[i], found);
    });
    journal.finish();
    return {name_,
            options_.shots,
            count_,
            data_.questions.size(),
            metrics(journal),
            all.text(),
            truncated,
            data_.id,
            data_.source};
  }

 private:
  std::vector<const ChoiceQuestion*> draw(PythonRandom& random, std::uint32_t count,
                                          const ChoiceQuestion& asked) const {
    const bool apart = !data_.shots.empty();
    std::vector<const ChoiceQuestion*> pool;
    for (const ChoiceQuestion& q : apart ? data_.shots : data_.questions) pool.push_back(&q);
    const auto sample = [&](std::uint32_t n) {
      std::vector<const ChoiceQuestion*> drawn;
      for (const std::uint32_t k : random.sample(static_cast<std::uint32_t>(pool.size()), n)) {
        drawn.push_back(pool[k]);
      }
      return drawn;
    };
    const auto is_asked = [&](const ChoiceQuestion* q) { return *q == asked; };
    std::vector<const ChoiceQuestion*> drawn = sample(apart ? count : count + 1);
    std::erase_if(drawn, is_asked);
    if (drawn.size() < count) {
      std::erase_if(pool, is_asked);
      ESP_REQUIRE(pool.size() >= count, UsageError, name_, ": ", count, " shots, but only ",
                  pool.size(), " other questions to choose from");
      drawn = sample(count);
    }
    drawn.resize(count);
    return drawn;
  }

  io::Json describe(const ChoiceQuestion& q, const std::vector<infer::Continuation>& asked,
                    std::span<const infer::Likelihood> found) const {
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
      return line;
    }
    if (!q.truth.empty()) {
      line["mc2"] = true_share(log_probs, q.truth);
      return line;
    }
    const ChoiceVerdict verdict = judge_choices(log_probs, q.characters, q.gold);
    line["gold"] = q.gold;
    line["acc"] = verdict.acc ? 1 : 0;
    if (has_metric("acc_norm")) line["acc_norm"] = verdict.acc_norm ? 1 : 0;
    return line;
  }

  bool has_metric(std::string_view name) const {
    return std::count(data_.metrics.begin(), data_.metrics.end(), name) > 0;
  }
  std::vector<Metric> metrics(const Journal& journal) const {
    std::vector<Metric> out;
    for (const char* name : {"acc", "acc_norm", "mc2"}) {
      if (count_ == 0 || journal.entry(0).find(name) == nullptr) continue;
      std::vector<double> hits;
      for (std::size_t i = 0; i < count_; ++i)
        hits.push_back(journal.entry(i).at(name).as_double());
      out.push_back({name, mean_of(hits)});
    }
    if (has_metric("ppl")) {
      std::vector<double> sums;
      for (std::size_t i = 0; i < count_; ++i) {
        sums.push_back(journal.entry(i).at("logprobs").at(0).as_double());
      }
      out.push_back({"ppl", perplexity_of(sums)});
    }
    return out;
  }

  std::string name_;
  ChoiceData data_;
  ChoiceOptions options_;
  std::size_t count_ = 0;
};

}  // namespace espalier::eval
