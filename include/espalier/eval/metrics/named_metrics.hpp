// SPDX-License-Identifier: Apache-2.0
// Metrics of generated answers by name, as a task definition names them. Names are LightEval's
// where it has the metric. A metric of one question gives one or more scores, of which a task
// reports the mean; one of a whole data set gives one score. docs/metrics.md lists them.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/named_metrics.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <espalier/core/inline.hpp>

namespace espalier::eval::metrics {

/// A question's right answers and what a model wrote; not all metrics use the last two.
struct GeneratedAnswer {
  std::vector<std::string> golds;
  std::vector<std::string> predictions;  // one, or one per sample
  std::size_t choices = 0;  // letters that are an answer, for those that extract letters
  std::string source = {};  // the text that is summarized, for extractiveness
};

using NamedScores = std::vector<std::pair<std::string, double>>;

struct AnswerMetric {
  std::string_view name;
  NamedScores (*scores)(const GeneratedAnswer&);
};
struct CorpusMetric {
  std::string_view name;
  bool higher_is_better;
  double (*score)(std::span<const GeneratedAnswer>);
};
/// All there are; those of answers are better when higher but for edit_distance.
[[nodiscard]] std::span<const AnswerMetric> answer_metrics();
[[nodiscard]] std::span<const CorpusMetric> corpus_metrics();
/// @throws FormatError with all names if there is none of this name
[[nodiscard]] const AnswerMetric& find_answer_metric(std::string_view name, std::string_view where);
[[nodiscard]] const CorpusMetric& find_corpus_metric(std::string_view name, std::string_view where);

/// Metrics that are known and not implemented, with the reason.
struct AbsentMetric {
  std::string_view name, reason;
};
[[nodiscard]] std::span<const AbsentMetric> absent_metrics();

/// How a metric of several samples scores one of them: 1 or 0 for (gold, prediction).
using SampleScore = std::function<double(const std::string&, const std::string&)>;
/// "exact" (stripped texts are equal), "math" (pass_at_k_math's rules), "math_expression" and
/// "math_latex" (g_pass_at_k_math's and g_pass_at_k_latex's), "letter" (pass_at_k_letters'),
/// "gpqa" (a letter anywhere).
/// @throws FormatError for another name
[[nodiscard]] SampleScore sample_score(std::string_view name, std::size_t choices,
                                       std::string_view where);
/// Each of the first n predictions against the first gold.
/// @throws UsageError if there is no gold, or there are fewer than n predictions
[[nodiscard]] std::vector<double> score_samples(const GeneratedAnswer& answer, std::size_t n,
                                                const SampleScore& score);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>
#include <map>
#include <mutex>

#include <espalier/core/error.hpp>
#include <espalier/eval/metrics/bleu.hpp>
#include <espalier/eval/metrics/chrf.hpp>
#include <espalier/eval/metrics/classification.hpp>
#include <espalier/eval/metrics/copying.hpp>
#include <espalier/eval/metrics/drop.hpp>
#include <espalier/eval/metrics/letter_answer.hpp>
#include <espalier/eval/metrics/math_answer.hpp>
#include <espalier/eval/metrics/math_match.hpp>
#include <espalier/eval/metrics/rouge.hpp>
#include <espalier/eval/metrics/ter.hpp>
#include <espalier/eval/metrics/text_match.hpp>

namespace espalier::eval::metrics {

namespace detail {

template <class Score>
NamedScores best_score(const char* name, const GeneratedAnswer& a, Score&& score) {
  return {{name, best_pair(a.golds, a.predictions, score)}};
}

/// Mean over all pairs, as LightEval's ROUGE without several golds at once.
template <class Score>
double mean_pair(const GeneratedAnswer& a, Score&& score) {
  double sum = 0, pairs = 0;
  for (const std::string& p : a.predictions) {
    for (const std::string& g : a.golds) {
      sum += score(g, p);
      ++pairs;
    }
  }
  return pairs > 0 ? sum / pairs : 0;
}

template <MatchKind kind, TextNormalizer normalizer>
NamedScores match_scores(const GeneratedAnswer& a) {
  const char* name = normalizer == TextNormalizer::helm ? (kind == MatchKind::full ? "qem" : "pqem")
                                                        : (kind == MatchKind::full     ? "em"
                                                           : kind == MatchKind::prefix ? "pem"
                                                                                       : "sem");
  return best_score(name, a, [](const auto& g, const auto& p) {
    return text_match(g, p, {kind, normalizer, true});
  });
}

inline double rouge_f(std::string_view name, std::string_view gold, std::string_view prediction) {
  if (name == "rouge1") return rouge_n(gold, prediction, 1).f;
  if (name == "rouge2") return rouge_n(gold, prediction, 2).f;
  return name == "rougeL" ? rouge_l(gold, prediction).f : rouge_lsum(gold, prediction).f;
}
template <char last>
NamedScores rouge_scores(const GeneratedAnswer& a) {
  const std::string name = last == 's' ? "rougeLsum" : std::string("rouge") + last;
  return {{name, mean_pair(a, [&](const auto& g, const auto& p) { return rouge_f(name, g, p); })}};
}
/// T5's: percent, and sentences end at " . ". The first prediction against the first gold; where
/// the original bootstraps over a data set, the mean is its middle value.
inline NamedScores rouge_t5_scores(const GeneratedAnswer& a) {
  NamedScores out;
  for (const char* name : {"rouge1", "rouge2", "rougeL", "rougeLsum"}) {
    const bool both = !a.golds.empty() && !a.predictions.empty();
    out.emplace_back(
        name, both ? 100 * rouge_f(name, normalize_text(a.golds[0], TextNormalizer::bigbench),
                                   normalize_text(a.predictions[0], TextNormalizer::bigbench))
                   : 0);
  }
  return out;
}

template <int order>
NamedScores bleu_scores(const GeneratedAnswer& a) {
  double sum = 0;
  for (const std::string& p : a.predictions) sum += sentence_bleu({p, a.golds}, order);
  const auto n = static_cast<double>(std::max<std::size_t>(1, a.predictions.size()));
  return {{"bleu_" + std::to_string(order), sum / n}};
}

inline const std::string& first_of(const std::vector<std::string>& texts) {
  ESP_REQUIRE(!texts.empty(), UsageError, "a metric needs a gold and a prediction, found none");
  return texts[0];
}

inline NamedScores drop_named(const GeneratedAnswer& a) {
  std::vector<std::vector<std::string>> golds;
  for (const std::string& g : a.golds) golds.push_back({g});
  const DropScores s = drop_scores(golds, a.predictions);
  return {{"em", s.em}, {"f1", s.f1}};
}
inline NamedScores copyright_scores(const GeneratedAnswer& a) {
  const StringDistance d = string_distance(first_of(a.golds), first_of(a.predictions));
  return {{"longest_common_prefix_length", d.longest_common_prefix_length},
          {"edit_distance", d.edit_distance},
          {"edit_similarity", d.edit_similarity}};
}
inline NamedScores extractiveness_scores(const GeneratedAnswer& a) {
  const Extractiveness e = extractiveness(a.source, first_of(a.predictions));
  return {{"summarization_coverage", e.coverage},
          {"summarization_density", e.density},
          {"summarization_compression", e.compression}};
}
/// The answer is what stands between the first and the last dollar sign, else all that was written.
inline NamedScores hendrycks_scores(const GeneratedAnswer& a) {
  return best_score("exact_match", a, [](const std::string& g, const std::string& p) {
    const std::size_t first = p.find('$'), last = p.rfind('$');
    const std::string answer = first < last ? p.substr(first + 1, last - first - 1) : p;
    return math_is_equiv(last_boxed(g).value_or(g), answer) ? 1.0 : 0.0;
  });
}
inline NamedScores minerva_scores(const GeneratedAnswer& a) {
  return best_score("exact_match", a, [](const std::string& g, const std::string& p) {
    const std::string gold = minerva_normalize(last_boxed(g).value_or(g));
    const std::string answer = minerva_normalize(minerva_answer(p));
    return gold == answer || math_equal(gold, answer) ? 1.0 : 0.0;
  });
}
/// Compiled once for each number of choices.
inline LetterAnswer letter_answer(std::size_t choices, bool anywhere) {
  static std::mutex mutex;
  static std::map<std::pair<std::size_t, bool>, LetterAnswer> all;
  const std::lock_guard lock(mutex);
  return all.try_emplace({choices, anywhere}, choices, anywhere).first->second;
}
template <bool anywhere>
NamedScores letter_scores(const GeneratedAnswer& a) {
  return best_score("extractive_match", a, letter_answer(a.choices, anywhere));
}

inline constexpr MathTargets kExpressions = {true, false, false}, kLatex = {false, true, false},
                             kBoth = {true, true, false}, kBoxedFirst = {true, true, true};
/// Gold and answer in LaTeX or plain, a boxed one first.
inline NamedScores math_value_scores(const GeneratedAnswer& a) {
  return best_score("extractive_match", a, [](const std::string& g, const std::string& p) {
    const MathTargets targets{true, true, true};
    return math_match(g, targets, p, targets);
  });
}
inline NamedScores expression_scores(const GeneratedAnswer& a) {
  return best_score("extractive_match", a, [](const auto& g, const auto& p) {
    return math_match(g, kExpressions, p, kBoxedFirst, 5);
  });
}

inline std::vector<Translation> translations(std::span<const GeneratedAnswer> corpus) {
  std::vector<Translation> out;
  for (const GeneratedAnswer& a : corpus) out.push_back({first_of(a.predictions), a.golds});
  return out;
}
template <double (*score)(std::span<const std::string>, std::span<const std::string>)>
double label_score(std::span<const GeneratedAnswer> corpus) {
  std::vector<std::string> golds, predictions;
  for (const GeneratedAnswer& a : corpus) {
    golds.push_back(first_of(a.golds));
    predictions.push_back(first_of(a.predictions));
  }
  return score(golds, predictions);
}

template <class Metric>
const Metric& find_metric(std::span<const Metric> all, std::string_view name,
                          std::string_view where) {
  std::string names;
  for (const Metric& m : all) {
    if (m.name == name) return m;
    names += (names.empty() ? "" : ", ") + std::string(m.name);
  }
  for (const AbsentMetric& m : absent_metrics()) {
    ESP_REQUIRE(m.name != name, FormatError, where, ": the metric \"", name,
                "\" is not implemented: ", m.reason);
  }
  throw FormatError(
      espalier::detail::concat({where, ": \"", name, "\" is no metric; there are ", names}));
}

}  // namespace detail

ESP_INLINE std::span<const AnswerMetric> answer_metrics() {
  using enum MatchKind;
  using enum TextNormalizer;
  static constexpr AnswerMetric kAll[] = {
      {"exact_match", detail::match_scores<full, none>},
      {"prefix_exact_match", detail::match_scores<prefix, none>},
      {"suffix_exact_match", detail::match_scores<suffix, none>},
      {"quasi_exact_match", detail::match_scores<full, helm>},
      {"prefix_quasi_exact_match", detail::match_scores<prefix, helm>},
      {"f1_score",
       [](const GeneratedAnswer& a) { return detail::best_score("f1", a, word_set_f1); }},
      {"token_f1", [](const GeneratedAnswer& a) { return detail::best_score("f1", a, token_f1); }},
      {"drop", detail::drop_named},
      {"bleu_1", detail::bleu_scores<1>},
      {"bleu_4", detail::bleu_scores<4>},
      {"rouge1", detail::rouge_scores<'1'>},
      {"rouge2", detail::rouge_scores<'2'>},
      {"rougeL", detail::rouge_scores<'L'>},
      {"rougeLsum", detail::rouge_scores<'s'>},
      {"rouge_t5", detail::rouge_t5_scores},
      {"copyright", detail::copyright_scores},
      {"extractiveness", detail::extractiveness_scores},
      {"hendrycks_math", detail::hendrycks_scores},
      {"minerva_math", detail::minerva_scores},
      {"math_value", detail::math_value_scores},
      {"expr_gold_metric", detail::expression_scores},
      {"gpqa_instruct_metric", detail::letter_scores<true>},
      {"letter_match", detail::letter_scores<false>}};
  return kAll;
}

ESP_INLINE std::span<const CorpusMetric> corpus_metrics() {
  using Corpus = std::span<const GeneratedAnswer>;
  static constexpr CorpusMetric kAll[] = {
      {"bleu", true, [](Corpus c) { return corpus_bleu(detail::translations(c)); }},
      {"chrf", true, [](Corpus c) { return corpus_chrf(detail::translations(c)); }},
      {"chrf_plus", true, [](Corpus c) { return corpus_chrf(detail::translations(c), 2); }},
      {"ter", false, [](Corpus c) { return corpus_ter(detail::translations(c)); }},
      {"f1_score_micro", true, detail::label_score<f1_micro<std::string>>},
      {"f1_score_macro", true, detail::label_score<f1_macro<std::string>>}};
  return kAll;
}

ESP_INLINE std::span<const AbsentMetric> absent_metrics() {
  static constexpr std::string_view kModel =
      "it needs a trained scoring model beside the evaluated one";
  static constexpr AbsentMetric kAll[] = {
      {"bert_score", kModel},
      {"bleurt", kModel},
      {"faithfulness", kModel},
      {"simpleqa_judge", "a judge model behind a network service scores each answer"}};
  return kAll;
}

ESP_INLINE const AnswerMetric& find_answer_metric(std::string_view name, std::string_view where) {
  return detail::find_metric(answer_metrics(), name, where);
}
ESP_INLINE const CorpusMetric& find_corpus_metric(std::string_view name, std::string_view where) {
  return detail::find_metric(corpus_metrics(), name, where);
}

ESP_INLINE SampleScore sample_score(std::string_view name, std::size_t choices,
                                    std::string_view where) {
  const auto math = [](MathTargets golds, MathTargets predictions, int decimals) {
    return [=](const std::string& g, const std::string& p) {
      return math_match(g, golds, p, predictions, decimals);
    };
  };
  if (name == "exact") {
    return
        [](const std::string& g, const std::string& p) { return strip(g) == strip(p) ? 1.0 : 0.0; };
  }
  if (name == "math") return math(detail::kBoth, detail::kBoth, 6);
  if (name == "math_expression") return math(detail::kExpressions, detail::kBoxedFirst, 5);
  if (name == "math_latex") return math(detail::kLatex, detail::kBoxedFirst, 5);
  ESP_REQUIRE(
      name == "letter" || name == "gpqa", FormatError, where, ": \"", name,
      "\" scores no samples; there are exact, math, math_expression, math_latex, letter and "
      "gpqa");
  return detail::letter_answer(choices, name == "gpqa");
}

ESP_INLINE std::vector<double> score_samples(const GeneratedAnswer& answer, std::size_t n,
                                             const SampleScore& score) {
  ESP_REQUIRE(!answer.golds.empty() && answer.predictions.size() >= n, UsageError, "a score of ", n,
              " samples needs a gold and as many predictions; found ", answer.golds.size(), " and ",
              answer.predictions.size());
  std::vector<double> scores;
  for (std::size_t i = 0; i < n; ++i)
    scores.push_back(score(answer.golds[0], answer.predictions[i]));
  return scores;
}

}  // namespace espalier::eval::metrics
#endif
