// SPDX-License-Identifier: Apache-2.0
// The plain loops behind routing, dispatch, combine and the losses of a router, for any scalar.
// The choice of experts is an argument: it is not differentiable.
#pragma once

#include <cstdint>
#include <vector>

#include <espalier/ops/reference/softmax.hpp>

namespace espalier::reference {

/// Mixtral's rule as it is written: softmax over all E, keep `chosen` [N, K], divide by their sum;
/// the last step may be left out.
template <class S>
std::vector<S> router_weights(const std::vector<S>& logits, const std::vector<int>& chosen,
                              std::int64_t n, std::int64_t e, std::int64_t k,
                              bool renormalize = true) {
  std::vector<S> weights;
  for (std::int64_t i = 0; i < n; ++i) {
    const auto p = softmax_row(logits.data() + i * e, e);
    S total{0};
    for (std::int64_t j = 0; j < k; ++j) total += p[chosen[i * k + j]];
    if (!renormalize) total = S{1};
    for (std::int64_t j = 0; j < k; ++j) weights.push_back(p[chosen[i * k + j]] / total);
  }
  return weights;
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
