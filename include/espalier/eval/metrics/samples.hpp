// SPDX-License-Identifier: Apache-2.0
// Scores of several samples of one question: mean, majority, pass@k and G-Pass@k.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include <espalier/core/error.hpp>

namespace espalier::eval::metrics {

/// Probability that one of k samples, drawn without replacement out of n of which c are right, is
/// right: 1 - C(n-c, k) / C(n, k) (Chen et al. 2021).
/// @throws UsageError unless c <= n and 1 <= k <= n
[[nodiscard]] inline double pass_at_k(std::size_t n, std::size_t c, std::size_t k) {
  ESP_REQUIRE(c <= n && k >= 1 && k <= n, UsageError, "pass@", k, " of ", n, " samples, ", c,
              " of them right: expected 1 <= k <= samples");
  if (n - c < k) return 1;
  double none = 1;
  for (std::size_t i = n - c + 1; i <= n; ++i) {
    none *= 1 - static_cast<double>(k) / static_cast<double>(i);
  }
  return 1 - none;
}

/// Probability that at least m of k samples, drawn as for pass_at_k, are right; 0 where no draw can
/// be so.
[[nodiscard]] inline double at_least_right(std::size_t n, std::size_t c, std::size_t k,
                                           std::size_t m) {
  if (k > n || m > std::min(c, k)) return 0;
  const auto log_choose = [](std::size_t a, std::size_t b) {
    const auto f = [](std::size_t x) { return std::lgamma(static_cast<double>(x) + 1); };
    return f(a) - f(b) - f(a - b);
  };
  double sum = 0;
  for (std::size_t right = m; right <= std::min(c, k); ++right) {
    if (k - right > n - c) continue;
    sum += std::exp(log_choose(c, right) + log_choose(n - c, k - right) - log_choose(n, k));
  }
  return std::min(sum, 1.0);
}

/// G-Pass@k at a threshold (Liu et al. 2024): at least max(1, ceil(k * threshold)) of k samples are
/// right.
[[nodiscard]] inline double g_pass_at_k(std::size_t n, std::size_t c, std::size_t k,
                                        double threshold) {
  ESP_REQUIRE(threshold >= 0 && threshold <= 1, UsageError, "G-Pass@", k, ": the threshold ",
              threshold, " is not between 0 and 1");
  const double needed = std::ceil(static_cast<double>(k) * threshold);
  return at_least_right(n, c, k, std::max<std::size_t>(1, static_cast<std::size_t>(needed)));
}

/// mG-Pass@k: the mean over thresholds from 1/2 to 1, 2/k times the sum over ceil(k/2) < m <= k.
[[nodiscard]] inline double mean_g_pass_at_k(std::size_t n, std::size_t c, std::size_t k) {
  double sum = 0;
  for (std::size_t m = (k + 1) / 2 + 1; m <= k; ++m) sum += at_least_right(n, c, k, m);
  return 2 * sum / static_cast<double>(k);
}

/// The text that occurs most often; of several the first.
/// @throws UsageError if there is none
[[nodiscard]] inline const std::string& most_frequent(std::span<const std::string> texts) {
  ESP_REQUIRE(!texts.empty(), UsageError, "a majority needs a text, found none");
  std::vector<std::string_view> sorted(texts.begin(), texts.end());
  std::sort(sorted.begin(), sorted.end());
  const auto count = [&](std::string_view text) {
    const auto equal = std::equal_range(sorted.begin(), sorted.end(), text);
    return equal.second - equal.first;
  };
  return *std::max_element(texts.begin(), texts.end(),
                           [&](const auto& a, const auto& b) { return count(a) < count(b); });
}

}  // namespace espalier::eval::metrics
