// SPDX-License-Identifier: Apache-2.0
// The plain loops behind routing, dispatch, combine and the losses of a router, for any scalar.
// The choice of experts is an argument: it is not differentiable. The rule of a router is that of
// router_rule.hpp.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include <espalier/ops/reference/softmax.hpp>
#include <espalier/ops/router_rule.hpp>

namespace espalier::reference {

/// The scores of one row of logits.
template <class S>
std::vector<S> router_scores(const S* logits, std::int64_t e, const RouterRule& rule) {
  if (rule.score == RouterRule::Score::softmax) return softmax_row(logits, e);
  std::vector<S> s;
  for (std::int64_t c = 0; c < e; ++c) s.push_back(S{1} / (S{1} + std::exp(-logits[c])));
  return s;
}

/// Indices of `values`, the largest first; the earlier of equals.
inline std::vector<int> best_first(const std::vector<double>& values) {
  std::vector<int> order(values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a] > values[b]; });
  return order;
}

/// The experts [N, K] that the rule chooses, by sorting; `bias` [E] may be empty. No NaN.
inline std::vector<int> router_choice(const std::vector<double>& logits,
                                      const std::vector<double>& bias, std::int64_t n,
                                      std::int64_t e, const RouterRule& rule) {
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  const std::int64_t size = e / rule.groups;
  std::vector<int> chosen;
  for (std::int64_t i = 0; i < n; ++i) {
    const double* z = logits.data() + i * e;
    auto choice = router_scores(z, e, rule);
    for (std::int64_t c = 0; c < e; ++c) {
      choice[c] = z[c] == kNone ? kNone : choice[c] + (bias.empty() ? 0 : bias[c]);
    }
    std::vector<double> of_group;
    for (std::int64_t g = 0; g < rule.groups; ++g) {
      std::vector<double> group(choice.begin() + g * size, choice.begin() + (g + 1) * size);
      std::sort(group.rbegin(), group.rend());
      double score = group[0];
      const bool two = rule.group_score == RouterRule::GroupScore::top2_sum && size > 1;
      if (two && group[1] != kNone) score += group[1];
      of_group.push_back(score);
    }
    auto groups = best_first(of_group);
    groups.resize(static_cast<std::size_t>(rule.top_groups));
    std::int64_t left = rule.top_k;
    for (const int c : best_first(choice)) {
      const bool kept = std::find(groups.begin(), groups.end(), c / size) != groups.end();
      if (!kept || left == 0) continue;
      chosen.push_back(c);
      --left;
    }
  }
  return chosen;
}

/// Weights [N, K] of the experts `chosen` [N, K].
template <class S>
std::vector<S> router_weights(const std::vector<S>& logits, const std::vector<int>& chosen,
                              std::int64_t n, std::int64_t e, const RouterRule& rule) {
  const std::int64_t k = rule.top_k;
  std::vector<S> weights;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto s = router_scores(logits.data() + i * e, e, rule);
    S total{rule.epsilon};
    for (std::int64_t j = 0; j < k; ++j) total += s[chosen[i * k + j]];
    if (!rule.renormalize) total = S{1};
    for (std::int64_t j = 0; j < k; ++j) {
      weights.push_back(s[chosen[i * k + j]] / total * rule.scale);
    }
  }
  return weights;
}

/// Their gradient by the logits, from that by the weights: quotient rule, then through the scores.
template <class S>
std::vector<S> router_weights_backward(const std::vector<S>& logits, const std::vector<int>& chosen,
                                       const std::vector<S>& dweights, std::int64_t n,
                                       std::int64_t e, const RouterRule& rule) {
  const std::int64_t k = rule.top_k;
  std::vector<S> dlogits;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto s = router_scores(logits.data() + i * e, e, rule);
    S total{rule.epsilon}, dtotal{0};
    for (std::int64_t j = i * k; j < (i + 1) * k; ++j) total += s[chosen[j]];
    if (!rule.renormalize) total = S{1};
    std::vector<S> ds(static_cast<std::size_t>(e), S{0});
    for (std::int64_t j = i * k; j < (i + 1) * k; ++j) {
      ds[chosen[j]] = dweights[j] * rule.scale / total;
      dtotal -= dweights[j] * rule.scale * s[chosen[j]] / (total * total);
    }
    S dot{0};
    for (std::int64_t j = i * k; rule.renormalize && j < (i + 1) * k; ++j) ds[chosen[j]] += dtotal;
    for (std::int64_t c = 0; c < e; ++c) dot += s[c] * ds[c];
    for (std::int64_t c = 0; c < e; ++c) {
      const bool softmax = rule.score == RouterRule::Score::softmax;
      dlogits.push_back(s[c] * (softmax ? ds[c] - dot : ds[c] * (S{1} - s[c])));
    }
  }
  return dlogits;
}

/// y[n] = sum over k of weights[n, k] · (matrix of expert chosen[n, k]) x[n]: a whole sparse layer
/// whose experts are one matrix [H, H] each, by a loop over tokens.
template <class S>
std::vector<S> moe_of_matrices(const std::vector<S>& x, const std::vector<S>& weights,
                               const std::vector<std::vector<S>>& matrices,
                               const std::vector<int>& chosen, std::int64_t n, std::int64_t h,
                               std::int64_t k) {
  std::vector<S> y(n * h, S{0});
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = i * k; j < (i + 1) * k; ++j) {
      for (std::int64_t o = 0; o < h; ++o) {
        for (std::int64_t c = 0; c < h; ++c) {
          y[i * h + o] += weights[j] * matrices[chosen[j]][o * h + c] * x[i * h + c];
        }
      }
    }
  }
  return y;
}

/// load_balancing_loss_func of transformers over rows [N, E] of all layers, without a mask.
template <class S>
S load_balancing_loss(const std::vector<S>& logits, const std::vector<int>& chosen, std::int64_t n,
                      std::int64_t e, std::int64_t k) {
  std::vector<S> mean(e, S{0});
  std::vector<double> share(k * e, 0.0);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto p = softmax_row(logits.data() + i * e, e);
    for (std::int64_t c = 0; c < e; ++c) mean[c] += p[c] / static_cast<double>(n);
    for (std::int64_t j = 0; j < k; ++j) {
      share[j * e + chosen[i * k + j]] += 1.0 / static_cast<double>(n);
    }
  }
  S loss{0};
  for (std::int64_t j = 0; j < k * e; ++j) loss += share[j] * mean[j % e];
  return static_cast<double>(e) * loss;
}

/// Mean over rows of (log sum exp)²: ST-MoE, arXiv:2202.08906, eq. 5.
template <class S>
S router_z_loss(const std::vector<S>& logits, std::int64_t n, std::int64_t e) {
  S total{0};
  for (std::int64_t i = 0; i < n; ++i) {
    const S z = log_sum_exp(logits.data() + i * e, e);
    total += z * z;
  }
  return total / static_cast<double>(n);
}

}  // namespace espalier::reference
