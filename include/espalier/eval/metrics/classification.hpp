// SPDX-License-Identifier: Apache-2.0
// F1 and Matthews' correlation over predicted labels of a whole data set, as scikit-learn defines
// them. Labels are anything that std::map orders: texts, or positions of choices. The classes are
// those that occur among golds or predictions.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <span>
#include <vector>

#include <espalier/core/error.hpp>

namespace espalier::eval::metrics {

/// Of one class.
struct ClassCounts {
  double gold = 0, predicted = 0, both = 0;

  double f1() const { return gold + predicted == 0 ? 0 : 2 * both / (gold + predicted); }
};

/// @throws UsageError if the lists are empty or differ in length
template <class Label>
[[nodiscard]] std::map<Label, ClassCounts> count_classes(std::span<const Label> golds,
                                                         std::span<const Label> predictions) {
  ESP_REQUIRE(!golds.empty() && golds.size() == predictions.size(), UsageError,
              "a score of labels needs as many predictions as golds, and one at least; found ",
              predictions.size(), " and ", golds.size());
  std::map<Label, ClassCounts> counts;
  for (std::size_t i = 0; i < golds.size(); ++i) {
    ++counts[golds[i]].gold;
    ++counts[predictions[i]].predicted;
    if (golds[i] == predictions[i]) ++counts[golds[i]].both;
  }
  return counts;
}

/// Of all classes together: with one label for each item this is accuracy.
template <class Label>
[[nodiscard]] double f1_micro(std::span<const Label> golds, std::span<const Label> predictions) {
  ClassCounts sum;
  for (const auto& [label, c] : count_classes(golds, predictions)) {
    sum = {sum.gold + c.gold, sum.predicted + c.predicted, sum.both + c.both};
  }
  return sum.f1();
}

/// Mean over classes.
template <class Label>
[[nodiscard]] double f1_macro(std::span<const Label> golds, std::span<const Label> predictions) {
  const std::map<Label, ClassCounts> counts = count_classes(golds, predictions);
  double sum = 0;
  for (const auto& [label, c] : counts) sum += c.f1();
  return sum / static_cast<double>(counts.size());
}

/// Mean over classes, weighted by how often each is gold.
template <class Label>
[[nodiscard]] double f1_weighted(std::span<const Label> golds, std::span<const Label> predictions) {
  double sum = 0;
  for (const auto& [label, c] : count_classes(golds, predictions)) sum += c.gold * c.f1();
  return sum / static_cast<double>(golds.size());
}

/// Of the class where it is best: LightEval's loglikelihood_f1.
template <class Label>
[[nodiscard]] double f1_best(std::span<const Label> golds, std::span<const Label> predictions) {
  double best = 0;
  for (const auto& [label, c] : count_classes(golds, predictions)) best = std::max(best, c.f1());
  return best;
}

/// LightEval's multi_f1_numeric: for each of `classes` classes the micro F1 of "is it this class",
/// which is an accuracy; the mean of these.
[[nodiscard]] inline double f1_one_against_rest(std::span<const std::size_t> golds,
                                                std::span<const std::size_t> predictions,
                                                std::size_t classes) {
  (void)count_classes(golds, predictions);
  double agree = 0;
  for (std::size_t c = 0; c < classes; ++c) {
    for (std::size_t i = 0; i < golds.size(); ++i) {
      agree += (golds[i] == c) == (predictions[i] == c) ? 1 : 0;
    }
  }
  return agree / static_cast<double>(classes * golds.size());
}

/// Matthews' correlation for any number of classes (Gorodkin 2004); 0 where all golds or all
/// predictions are one class.
template <class Label>
[[nodiscard]] double matthews_correlation(std::span<const Label> golds,
                                          std::span<const Label> predictions) {
  const auto n = static_cast<double>(golds.size());
  double hits = 0, cross = 0, gold_squares = 0, predicted_squares = 0;
  for (const auto& [label, c] : count_classes(golds, predictions)) {
    hits += c.both;
    cross += c.gold * c.predicted;
    gold_squares += c.gold * c.gold;
    predicted_squares += c.predicted * c.predicted;
  }
  const double scale = (n * n - gold_squares) * (n * n - predicted_squares);
  return scale == 0 ? 0 : (hits * n - cross) / std::sqrt(scale);
}

}  // namespace espalier::eval::metrics
