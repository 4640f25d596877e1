// SPDX-License-Identifier: Apache-2.0
// Metrics of a question whose choices have log probabilities, and of texts that have one. Log
// probabilities are natural, summed over a choice's tokens. Definitions are those of LightEval
// (LoglikelihoodAcc, Recall, MRR, TruthfulqaMCMetrics, CorpusLevelPerplexityMetric).
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/likelihood.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/eval/statistics.hpp>

namespace espalier::eval::metrics {

/// The choices of one question, one entry each. What a normalization does not need may be empty.
struct ChoiceScores {
  std::vector<double> log_probs;
  std::vector<std::size_t> golds;  // which choices are right
  std::vector<std::string> choices = {};
  std::vector<std::size_t> tokens = {};    // length of each choice
  std::vector<double> unconditioned = {};  // log probabilities after a prompt without the question
};

enum class LogProbNorm {
  none,
  characters,           // per code point of the choice
  characters_no_space,  // the same; a space in front does not count
  tokens,               // per token
  pmi,                  // minus the unconditioned log probability
};

/// @throws UsageError if there is no choice, a log probability is NaN, a gold is no choice, or what
/// the normalization needs is missing
[[nodiscard]] std::vector<double> normalized_log_probs(const ChoiceScores& scores,
                                                       LogProbNorm norm = LogProbNorm::none);
/// 1 if the most probable choice, the first of equal ones, is right.
[[nodiscard]] double loglikelihood_acc(const ChoiceScores& scores,
                                       LogProbNorm norm = LogProbNorm::none);
/// The most probable choice, the first of equal ones.
[[nodiscard]] std::size_t best_choice(std::span<const double> log_probs);
/// The largest probability of a right choice, as a share of all choices' probability.
[[nodiscard]] double choice_probability(const ChoiceScores& scores,
                                        LogProbNorm norm = LogProbNorm::none);
/// 1 if a right choice is among the k most probable ones. For k above 1 the last of equal ones is
/// the more probable, as numpy's reversed argsort has it.
[[nodiscard]] double recall_at_k(const ChoiceScores& scores, std::size_t k);
/// 1 over the rank of the right choice, of several of the best; equal choices share the best rank.
[[nodiscard]] double reciprocal_rank(const ChoiceScores& scores,
                                     LogProbNorm norm = LogProbNorm::none);
/// 1 if the greedy continuation is one of the right ones.
[[nodiscard]] double acc_golds_likelihood(const std::vector<bool>& gold_is_greedy);

struct TruthfulQaScores {
  double mc1 = 0, mc2 = 0;
};
/// `log_probs` of the mc1 targets, of which the first is true, then of the mc2 targets. `golds` are
/// positions in that list; the first is mc1's. As in LightEval, the true mc2 targets end where
/// `golds` has the first gap: of question 371 one true answer counts as false.
/// @throws UsageError if there are no two golds, or one is out of range
[[nodiscard]] TruthfulQaScores truthfulqa_mc(std::span<const double> log_probs,
                                             std::span<const std::size_t> golds,
                                             std::size_t mc1_choices);

/// Pieces between white space, as `re.split(r"\s+", text)` counts them: an empty one where white
/// space stands at an end.
[[nodiscard]] std::size_t count_split_words(std::string_view text);
/// exp(-sum(log p) / sum(units)): of words or bytes. The standard error is to first order.
/// @throws UsageError if the lists differ in length, or there are no units
[[nodiscard]] Estimate weighted_perplexity(std::span<const double> log_probs,
                                           std::span<const double> units);
/// -log2(p) per byte.
[[nodiscard]] Estimate bits_per_byte(std::span<const double> log_probs,
                                     std::span<const double> bytes);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>
#include <cmath>
#include <numeric>

#include <espalier/eval/metrics/python_text.hpp>

namespace espalier::eval::metrics {

namespace detail {

/// What each log probability is divided by.
inline std::vector<double> choice_lengths(const ChoiceScores& s, LogProbNorm norm) {
  std::vector<double> lengths(s.log_probs.size(), 1.0);
  if (norm == LogProbNorm::tokens) {
    ESP_REQUIRE(s.tokens.size() == s.log_probs.size(), UsageError,
                "log probabilities per token: ", s.log_probs.size(),
                " choices, but token counts of ", s.tokens.size());
    std::copy(s.tokens.begin(), s.tokens.end(), lengths.begin());
  } else if (norm == LogProbNorm::characters || norm == LogProbNorm::characters_no_space) {
    ESP_REQUIRE(s.choices.size() == s.log_probs.size(), UsageError,
                "log probabilities per character: ", s.log_probs.size(), " choices, but texts of ",
                s.choices.size());
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      std::string_view text = s.choices[i];
      if (norm == LogProbNorm::characters_no_space && text.starts_with(' ')) text.remove_prefix(1);
      lengths[i] = static_cast<double>(code_points(text).size());
    }
  }
  for (std::size_t i = 0; i < lengths.size(); ++i) {
    ESP_REQUIRE(lengths[i] > 0, UsageError, "log probabilities per unit: choice ", i, " is empty");
  }
  return lengths;
}

}  // namespace detail

ESP_INLINE std::vector<double> normalized_log_probs(const ChoiceScores& s, LogProbNorm norm) {
  ESP_REQUIRE(!s.log_probs.empty(), UsageError, "a question without log probabilities of choices");
  for (const double p : s.log_probs) {
    ESP_REQUIRE(!std::isnan(p), UsageError, "a log probability of a choice is NaN");
  }
  for (const std::size_t gold : s.golds) {
    ESP_REQUIRE(gold < s.log_probs.size(), UsageError, "the right choice ", gold,
                " is none of the ", s.log_probs.size(), " choices");
  }
  std::vector<double> out = s.log_probs;
  if (norm == LogProbNorm::pmi) {
    ESP_REQUIRE(s.unconditioned.size() == out.size(), UsageError,
                "mutual information: ", out.size(),
                " choices, but unconditioned log probabilities of ", s.unconditioned.size());
    std::transform(out.begin(), out.end(), s.unconditioned.begin(), out.begin(), std::minus<>());
  } else if (norm != LogProbNorm::none) {
    const std::vector<double> lengths = detail::choice_lengths(s, norm);
    std::transform(out.begin(), out.end(), lengths.begin(), out.begin(), std::divides<>());
  }
  return out;
}

ESP_INLINE std::size_t best_choice(std::span<const double> log_probs) {
  return static_cast<std::size_t>(std::max_element(log_probs.begin(), log_probs.end()) -
                                  log_probs.begin());
}

ESP_INLINE double loglikelihood_acc(const ChoiceScores& s, LogProbNorm norm) {
  const std::size_t best = best_choice(normalized_log_probs(s, norm));
  return std::count(s.golds.begin(), s.golds.end(), best) > 0 ? 1 : 0;
}

ESP_INLINE double choice_probability(const ChoiceScores& s, LogProbNorm norm) {
  const std::vector<double> log_probs = normalized_log_probs(s, norm);
  const double largest = log_probs[best_choice(log_probs)];
  double sum = 0, gold = 0;
  for (const double p : log_probs) sum += std::exp(p - largest);
  for (const std::size_t i : s.golds) gold = std::max(gold, std::exp(log_probs[i] - largest));
  return gold / sum;
}

ESP_INLINE double recall_at_k(const ChoiceScores& s, std::size_t k) {
  if (k == 1) return loglikelihood_acc(s);
  const std::vector<double> log_probs = normalized_log_probs(s);
  std::vector<std::size_t> order(log_probs.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return log_probs[a] < log_probs[b]; });
  const auto last = static_cast<std::ptrdiff_t>(std::min(k, order.size()));
  return std::any_of(order.rbegin(), order.rbegin() + last, [&](std::size_t i) {
    return std::count(s.golds.begin(), s.golds.end(), i) > 0;
  });
}

ESP_INLINE double reciprocal_rank(const ChoiceScores& s, LogProbNorm norm) {
  ESP_REQUIRE(!s.golds.empty(), UsageError, "a reciprocal rank needs a right choice");
  const std::vector<double> log_probs = normalized_log_probs(s, norm);
  double best = 0;
  for (const std::size_t gold : s.golds) {
    const auto better = std::count_if(log_probs.begin(), log_probs.end(),
                                      [&](double p) { return p > log_probs[gold]; });
    best = std::max(best, 1.0 / static_cast<double>(better + 1));
  }
  return best;
}

ESP_INLINE double acc_golds_likelihood(const std::vector<bool>& gold_is_greedy) {
  return std::count(gold_is_greedy.begin(), gold_is_greedy.end(), true) > 0 ? 1 : 0;
}

ESP_INLINE TruthfulQaScores truthfulqa_mc(std::span<const double> log_probs,
                                          std::span<const std::size_t> golds,
                                          std::size_t mc1_choices) {
  ESP_REQUIRE(golds.size() >= 2 && mc1_choices > 0 && mc1_choices < log_probs.size(), UsageError,
              "truthfulqa_mc needs mc1 and mc2 targets and a gold of each; found ",
              log_probs.size(), " targets, ", mc1_choices, " of mc1, and ", golds.size(), " golds");
  // One past the last true target of mc2, counted from mc1's first.
  std::size_t end = golds[1];
  for (std::size_t i = 1; i < golds.size() && golds[i] == end; ++i) ++end;
  const std::span<const double> mc2 = log_probs.subspan(mc1_choices);
  // Before mc1's end LightEval's slice counts from the other side.
  const auto n = static_cast<std::ptrdiff_t>(mc2.size());
  std::ptrdiff_t split =
      static_cast<std::ptrdiff_t>(end) - static_cast<std::ptrdiff_t>(mc1_choices);
  if (split < 0) split = std::max<std::ptrdiff_t>(0, split + n);
  double sum = 0, truth = 0;
  const double largest = *std::max_element(mc2.begin(), mc2.end());
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const double p = std::exp(mc2[static_cast<std::size_t>(i)] - largest);
    sum += p;
    if (i < split) truth += p;
  }
  return {best_choice(log_probs.first(mc1_choices)) == 0 ? 1.0 : 0.0, truth / sum};
}

ESP_INLINE std::size_t count_split_words(std::string_view text) {
  const std::string valid = valid_text(text);
  std::size_t words = split(valid).size();
  if (strip(valid).empty()) return valid.empty() ? 1 : 2;
  const std::string_view inner = strip(valid);
  if (inner.data() != valid.data()) ++words;
  if (inner.data() + inner.size() != valid.data() + valid.size()) ++words;
  return words;
}

ESP_INLINE Estimate weighted_perplexity(std::span<const double> log_probs,
                                        std::span<const double> units) {
  ESP_REQUIRE(log_probs.size() == units.size(), UsageError, "a perplexity of ", log_probs.size(),
              " log probabilities, but ", units.size(), " counts of units");
  ESP_REQUIRE(std::accumulate(units.begin(), units.end(), 0.0) > 0, UsageError,
              "a perplexity of texts without words or bytes");
  const Estimate rate = ratio_of(log_probs, units);
  const double perplexity = std::exp(-rate.value);
  return {perplexity, perplexity * rate.standard_error};
}

ESP_INLINE Estimate bits_per_byte(std::span<const double> log_probs,
                                  std::span<const double> bytes) {
  const Estimate perplexity = weighted_perplexity(log_probs, bytes);
  return {std::log2(perplexity.value),
          perplexity.standard_error / perplexity.value / std::log(2.0)};
}

}  // namespace espalier::eval::metrics
#endif
