// SPDX-License-Identifier: Apache-2.0
// Are two models different? Both answered the same questions, so the questions on which they differ
// decide; the spread over questions, which is most of each model's standard error, cancels.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/paired_tests.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/random.hpp>
#include <espalier/eval/statistics.hpp>

namespace espalier::eval {

struct Interval {
  double low = 0, high = 0;
};

inline constexpr double kNormal95 = 1.959963984540054;   // the quantile of 0.975
inline constexpr double kNormal80 = 0.8416212335729143;  // the quantile of 0.8

/// Mean difference of paired samples, and its standard error.
[[nodiscard]] inline Estimate paired_difference(std::span<const double> a,
                                                std::span<const double> b) {
  ESP_REQUIRE(a.size() == b.size(), UsageError, "paired difference: ", a.size(), " and ", b.size(),
              " samples");
  std::vector<double> d(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) d[i] = a[i] - b[i];
  return mean_of(d);
}

/// Two-sided p of the exact McNemar test: `b` questions were right under the first model only, `c`
/// under the second only; under the null hypothesis each is a fair coin.
[[nodiscard]] inline double mcnemar_exact(std::int64_t b, std::int64_t c) {
  const std::int64_t n = b + c, k = std::min(b, c);
  if (n == 0) return 1;
  const double total = std::lgamma(static_cast<double>(n) + 1);
  double p = 0;
  for (std::int64_t i = 0; i <= k; ++i) {
    p += std::exp(total - std::lgamma(static_cast<double>(i) + 1) -
                  std::lgamma(static_cast<double>(n - i) + 1) -
                  static_cast<double>(n) * std::log(2.0));
  }
  return std::min(1.0, 2 * p);
}

/// 95 % of a share (Wilson 1927): not of width 0 at 0 and 1, unlike the normal interval.
[[nodiscard]] inline Interval wilson_interval(std::int64_t hits, std::int64_t count) {
  if (count == 0) return {0, 1};
  const auto n = static_cast<double>(count);
  const double p = static_cast<double>(hits) / n, z2 = kNormal95 * kNormal95;
  const double centre = (p + z2 / (2 * n)) / (1 + z2 / n);
  const double half = kNormal95 / (1 + z2 / n) * std::sqrt(p * (1 - p) / n + z2 / (4 * n * n));
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

/// 95 % of the mean of `differences` by the percentile bootstrap (Efron 1979). `clusters` names the
/// group of each difference, such as its subject; whole groups are drawn. Empty: each is its own.
[[nodiscard]] inline Interval bootstrap_interval(std::span<const double> differences,
                                                 std::span<const std::int64_t> clusters,
                                                 std::uint64_t seed, int rounds = 10000) {
  ESP_REQUIRE(!differences.empty(), UsageError, "bootstrap: no samples");
  struct Group {
    double sum = 0;
    std::int64_t count = 0;
  };
  std::vector<Group> groups;
  std::vector<std::int64_t> names;
  for (std::size_t i = 0; i < differences.size(); ++i) {
    const std::int64_t name = clusters.empty() ? static_cast<std::int64_t>(i) : clusters[i];
    std::size_t g = i;
    if (!clusters.empty()) {
      g = static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
    }
    if (g == groups.size()) {
      groups.emplace_back();
      names.push_back(name);
    }
    groups[g].sum += differences[i];
    ++groups[g].count;
  }
  std::vector<double> means(static_cast<std::size_t>(rounds));
  const auto n = static_cast<std::uint32_t>(groups.size());
  for (std::size_t r = 0; r < means.size(); ++r) {
    const Philox random(seed, r);
    Group drawn;
    for (std::uint32_t i = 0; i < n; ++i) {
      const Group& g = groups[random.below(i, n)];
      drawn.sum += g.sum;
      drawn.count += g.count;
    }
    means[r] = drawn.sum / static_cast<double>(drawn.count);
  }
  std::sort(means.begin(), means.end());
  const auto at = [&](double share) {
    return means[static_cast<std::size_t>(share * static_cast<double>(means.size() - 1) + 0.5)];
  };
  return {at(0.025), at(0.975)};
}

/// p values as if each test were the only one (Holm 1979), in the order given.
[[nodiscard]] inline std::vector<double> holm(std::span<const double> p) {
  std::vector<std::size_t> order(p.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return p[a] < p[b]; });
  std::vector<double> adjusted(p.size());
  double largest = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    largest = std::max(largest, static_cast<double>(p.size() - i) * p[order[i]]);
    adjusted[order[i]] = std::min(1.0, largest);
  }
  return adjusted;
}

/// The smallest true difference of two shares that a test of `count` questions at 5 % finds in 80 %
/// of all cases, if the models disagree on a share `discordant` of them.
[[nodiscard]] inline double smallest_detectable(std::int64_t count, double discordant) {
  return (kNormal95 + kNormal80) * std::sqrt(discordant / static_cast<double>(count));
}

}  // namespace espalier::eval
