// SPDX-License-Identifier: Apache-2.0
// Means and their standard errors. Sums are in double and in the given order, so that equal input
// gives equal bits.
#pragma once

#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace espalier::eval {

struct Estimate {
  double value = 0;
  double standard_error = 0;  // NaN for too few samples
};

/// Mean, and the sample's standard deviation over sqrt(n).
[[nodiscard]] inline Estimate mean_of(std::span<const double> samples) {
  const auto n = static_cast<double>(samples.size());
  double sum = 0, squares = 0;
  for (const double x : samples) sum += x;
  const double mean = sum / n;
  for (const double x : samples) squares += (x - mean) * (x - mean);
  if (samples.size() < 2) return {mean, std::numeric_limits<double>::quiet_NaN()};
  return {mean, std::sqrt(squares / (n - 1)) / std::sqrt(n)};
}

/// `hits` ones among `count` zeros and ones.
[[nodiscard]] inline Estimate share_of(std::size_t hits, std::size_t count) {
  std::vector<double> samples(count, 0.0);
  for (std::size_t i = 0; i < hits && i < count; ++i) samples[i] = 1.0;
  return mean_of(samples);
}

/// exp(-mean log p); its standard error to first order.
[[nodiscard]] inline Estimate perplexity_of(std::span<const double> log_probs) {
  const Estimate mean = mean_of(log_probs);
  const double perplexity = std::exp(-mean.value);
  return {perplexity, perplexity * mean.standard_error};
}

/// sum(x) / sum(weight) over independent texts; the standard error is that of a ratio estimator,
/// since the tokens of one text are not independent of each other.
[[nodiscard]] inline Estimate ratio_of(std::span<const double> x, std::span<const double> weight) {
  double sum = 0, weights = 0, squares = 0;
  for (const double v : x) sum += v;
  for (const double w : weight) weights += w;
  const double ratio = sum / weights;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double residual = x[i] - ratio * weight[i];
    squares += residual * residual;
  }
  const auto n = static_cast<double>(x.size());
  if (x.size() < 2) return {ratio, std::numeric_limits<double>::quiet_NaN()};
  return {ratio, std::sqrt(n / (n - 1) * squares) / weights};
}

}  // namespace espalier::eval
