// SPDX-License-Identifier: Apache-2.0
// Metrics of likelihoods, of labels and of several samples, against values by hand; where a comment
// names a call, from scikit-learn 1.8 and scipy 1.17.
#include <espalier/eval/metrics/classification.hpp>
#include <espalier/eval/metrics/likelihood.hpp>
#include <espalier/eval/metrics/samples.hpp>

#include <cmath>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::eval::metrics;
using Catch::Matchers::WithinAbs;
using espalier::test::message_of;

TEST_CASE("likelihood: each normalization picks its own choice", "[eval][metrics]") {
  ChoiceScores s;
  s.log_probs = {-4, -6, -9, -10};
  s.golds = {0};
  s.choices = {" a", " bcd", "éfghij", "klmnopqrst"};
  s.tokens = {1, 2, 1, 8};
  s.unconditioned = {-4, -8, -20, -9};
  CHECK(best_choice(normalized_log_probs(s)) == 0);
  CHECK(normalized_log_probs(s, LogProbNorm::characters) == std::vector{-2.0, -1.5, -1.5, -1.0});
  CHECK(normalized_log_probs(s, LogProbNorm::characters_no_space) ==
        std::vector{-4.0, -2.0, -1.5, -1.0});
  CHECK(normalized_log_probs(s, LogProbNorm::tokens) == std::vector{-4.0, -3.0, -9.0, -1.25});
  CHECK(normalized_log_probs(s, LogProbNorm::pmi) == std::vector{0.0, 2.0, 11.0, -1.0});
  CHECK(loglikelihood_acc(s) == 1);
  CHECK(loglikelihood_acc(s, LogProbNorm::pmi) == 0);
  s.golds = {1, 2};
  CHECK(loglikelihood_acc(s, LogProbNorm::pmi) == 1);
}

TEST_CASE("likelihood: ranks and shares", "[eval][metrics]") {
  const double third = std::log(1.0 / 3);
  CHECK_THAT(choice_probability({{third, 2 * third, third}, {1, 2}}), WithinAbs(3.0 / 7, 1e-12));
  CHECK(recall_at_k({{-1, -2, -3}, {1}}, 1) == 0);
  CHECK(recall_at_k({{-1, -2, -3}, {1}}, 2) == 1);
  CHECK(recall_at_k({{-1, -1, -1}, {0}}, 2) == 0);  // numpy: argsort()[::-1][:2] is [2, 1]
  CHECK(recall_at_k({{-1, -2}, {1}}, 9) == 1);
  CHECK_THAT(reciprocal_rank({{-1, -2, -2, -3}, {3, 2}}), WithinAbs(0.5, 1e-12));
  CHECK(acc_golds_likelihood({false, true}) == 1);
  CHECK(acc_golds_likelihood({false}) == 0);
}

TEST_CASE("likelihood: what does not fit is refused", "[eval][metrics]") {
  const auto message = [](const ChoiceScores& s, LogProbNorm norm) {
    return message_of<UsageError>([&] { (void)loglikelihood_acc(s, norm); });
  };
  CHECK_THAT(message({}, LogProbNorm::none), Catch::Contains("without log probabilities"));
  CHECK_THAT(message({{std::nan("")}, {0}}, LogProbNorm::none), Catch::Contains("is NaN"));
  CHECK_THAT(message({{-1, -2}, {2}}, LogProbNorm::none),
             Catch::Contains("the right choice 2 is none of the 2 choices"));
  CHECK_THAT(message({{-1, -2}, {0}}, LogProbNorm::tokens), Catch::Contains("token counts of 0"));
  CHECK_THAT(message({{-1}, {0}, {" "}}, LogProbNorm::characters_no_space),
             Catch::Contains("choice 0 is empty"));
  CHECK_THAT(message({{-1}, {0}}, LogProbNorm::pmi), Catch::Contains("log probabilities of 0"));
}

TEST_CASE("truthfulqa: mc2 ends at the first gap of the golds", "[eval][metrics]") {
  const auto log = [](double p) { return std::log(p); };
  const std::vector<double> p = {log(0.5), log(0.6), log(0.1), log(0.2), log(0.3), log(0.4)};
  // Of mc1 two targets; mc2 has true 2 and 3 and false 4 and 5.
  const TruthfulQaScores s = truthfulqa_mc(p, std::vector<std::size_t>{0, 2, 3}, 2);
  CHECK(s.mc1 == 0);
  CHECK_THAT(s.mc2, WithinAbs(0.3, 1e-12));
  // 5 is true as well, but after a gap.
  CHECK_THAT(truthfulqa_mc(p, std::vector<std::size_t>{0, 2, 3, 5}, 2).mc2, WithinAbs(0.3, 1e-12));
  CHECK_THAT(
      message_of<UsageError>([&] { (void)truthfulqa_mc(p, std::vector<std::size_t>{0}, 2); }),
      Catch::Contains("a gold of each; found 6 targets, 2 of mc1, and 1 golds"));
}

TEST_CASE("perplexity: per word, per byte, in bits", "[eval][metrics]") {
  CHECK(count_split_words("a b  c") == 3);
  CHECK(count_split_words(" a\n") == 3);  // len(re.split(r"\s+", " a\n"))
  CHECK(count_split_words("") == 1);
  CHECK(count_split_words(" ") == 2);
  const std::vector<double> log_probs = {-std::log(8.0), -std::log(4.0)}, units = {2, 3};
  CHECK_THAT(weighted_perplexity(log_probs, units).value, WithinAbs(2, 1e-12));
  CHECK_THAT(bits_per_byte(log_probs, units).value, WithinAbs(1, 1e-12));
  CHECK_THAT(message_of<UsageError>([&] { (void)weighted_perplexity(log_probs, {}); }),
             Catch::Contains("2 log probabilities, but 0 counts of units"));
}

TEST_CASE("labels: F1 and Matthews' correlation are scikit-learn's", "[eval][metrics]") {
  using Labels = std::vector<std::string>;
  const Labels golds = {"a", "b", "c", "a", "b", "a"}, predictions = {"a", "c", "c", "b", "b", "a"};
  const std::span<const std::string> g(golds), p(predictions);
  CHECK_THAT(f1_micro(g, p), WithinAbs(0.6666666666666666, 1e-12));
  CHECK_THAT(f1_macro(g, p), WithinAbs(0.6555555555555556, 1e-12));
  CHECK_THAT(f1_weighted(g, p), WithinAbs(0.6777777777777779, 1e-12));
  CHECK_THAT(f1_best(g, p), WithinAbs(0.8, 1e-12));
  CHECK_THAT(matthews_correlation(g, p), WithinAbs(0.5222329678670935, 1e-12));
  const std::vector<std::size_t> same = {1, 1}, other = {0, 1};
  CHECK(matthews_correlation(std::span<const std::size_t>(same),
                             std::span<const std::size_t>(other)) == 0);
  CHECK_THAT(f1_one_against_rest(same, other, 2), WithinAbs(0.5, 1e-12));
  CHECK_THAT(message_of<UsageError>([&] { (void)f1_micro(g, p.first(2)); }),
             Catch::Contains("found 2 and 6"));
}

TEST_CASE("samples: pass@k, G-Pass@k and majority", "[eval][metrics]") {
  CHECK_THAT(pass_at_k(4, 2, 2), WithinAbs(5.0 / 6, 1e-12));  // 1 - C(2,2)/C(4,2)
  CHECK(pass_at_k(4, 3, 2) == 1);
  CHECK(pass_at_k(4, 0, 2) == 0);
  // scipy.stats.hypergeom.sf(2, 16, 7, 5), sf(0, 10, 3, 4)
  CHECK_THAT(at_least_right(16, 7, 5, 3), WithinAbs(0.3653846153846153, 1e-12));
  CHECK_THAT(at_least_right(10, 3, 4, 1), WithinAbs(0.8333333333333334, 1e-12));
  CHECK_THAT(g_pass_at_k(16, 7, 5, 0.5), WithinAbs(0.3653846153846153, 1e-12));
  CHECK_THAT(mean_g_pass_at_k(4, 2, 2), WithinAbs(1.0 / 6, 1e-12));
  CHECK(g_pass_at_k(3, 0, 2, 0) == 0);
  CHECK(most_frequent(std::vector<std::string>{"a", "b", "c", "c", "b"}) == "b");
  CHECK_THAT(message_of<UsageError>([] { (void)pass_at_k(2, 1, 3); }),
             Catch::Contains("pass@3 of 2 samples, 1 of them right"));
  CHECK_THAT(message_of<UsageError>([] { (void)g_pass_at_k(2, 1, 1, 1.5); }),
             Catch::Contains("the threshold 1.5"));
}
