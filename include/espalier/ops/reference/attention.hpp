// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query attention by plain loops, for tests. Query head a reads kv head a / (A / G);
// in each segment, query i sees keys j with i - window < j <= i (window 0: all j <= i).
//   q, y: [N, A, P]   k, v: [N, G, P]   segments: S + 1 offsets into N   sinks: [A], or empty
// Ainslie et al. 2023, arXiv:2305.13245. A sink is a score of its head without a value. Subtracting
// the largest score changes nothing but the range.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <vector>

namespace espalier::reference {

struct AttentionSizes {
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;
  std::int64_t head_dim = 1;
  std::vector<std::int64_t> segments;
  std::int64_t window = 0;
};

template <class S>
struct AttentionGrads {
  std::vector<S> dq, dk, dv, dsinks;
};

namespace detail {
/// Calls `row(i, a, g, first, weights, sink)` for every query row and head: `weights[j]` is the
/// softmax weight of key `first + j`, `sink` that of the sink, 0 without sinks.
template <class S, class Row>
void for_each_attention_row(const std::vector<S>& q, const std::vector<S>& k,
                            const AttentionSizes& z, const std::vector<S>& sinks, Row&& row) {
  using std::exp;
  const S scale = 1.0 / std::sqrt(static_cast<double>(z.head_dim));
  for (std::size_t s = 0; s + 1 < z.segments.size(); ++s) {
    for (std::int64_t i = z.segments[s]; i < z.segments[s + 1]; ++i) {
      const std::int64_t first =
          z.window > 0 ? std::max(z.segments[s], i - z.window + 1) : z.segments[s];
      for (std::int64_t a = 0; a < z.heads; ++a) {
        const std::int64_t g = a / (z.heads / z.kv_heads);
        std::vector<S> weights(i - first + 1, S(0));
        double largest = -1e300;
        for (std::int64_t j = first; j <= i; ++j) {
          S& w = weights[j - first];
          for (std::int64_t p = 0; p < z.head_dim; ++p) {
            w += q[(i * z.heads + a) * z.head_dim + p] * k[(j * z.kv_heads + g) * z.head_dim + p];
          }
          w *= scale;
          largest = std::max(largest, std::real(w));
        }
        S sum = 0, sink = 0;
        if (!sinks.empty()) {
          largest = std::max(largest, std::real(sinks[a]));
          sum = sink = exp(sinks[a] - S(largest));
        }
        for (S& w : weights) sum += w = exp(w - S(largest));
        for (S& w : weights) w /= sum;
        row(i, a, g, first, weights, sink / sum);
      }
    }
  }
}
}  // namespace detail

template <class S>
std::vector<S> attention(const std::vector<S>& q, const std::vector<S>& k, const std::vector<S>& v,
                         const AttentionSizes& z, const std::vector<S>& sinks = {}) {
  std::vector<S> y(q.size(), S(0));
  detail::for_each_attention_row(q, k, z, sinks,
                                 [&](std::int64_t i, std::int64_t a, std::int64_t g,
                                     std::int64_t first, const std::vector<S>& weights, const S&) {
                                   for (std::size_t j = 0; j < weights.size(); ++j) {
                                     for (std::int64_t p = 0; p < z.head_dim; ++p) {
                                       y[(i * z.heads + a) * z.head_dim + p] +=
                                           weights[j] *
                                           v[((first + j) * z.kv_heads + g) * z.head_dim + p];
                                     }
                                   }
                                 });
  return y;
}

template <class S>
AttentionGrads<S> attention_backward(const std::vector<S>& dy, const std::vector<S>& q,
                                     const std::vector<S>& k, const std::vector<S>& v,
                                     const AttentionSizes& z, const std::vector<S>& sinks = {}) {
  AttentionGrads<S> grads{std::vector<S>(q.size(), S(0)), std::vector<S>(k.size(), S(0)),
                          std::vector<S>(v.size(), S(0)), std::vector<S>(sinks.size(), S(0))};
  const S scale = 1.0 / std::sqrt(static_cast<double>(z.head_dim));
  detail::for_each_attention_row(
      q, k, z, sinks,
      [&](std::int64_t i, std::int64_t a, std::int64_t g, std::int64_t first,
          const std::vector<S>& weights, const S& sink) {
        const std::int64_t qi = (i * z.heads + a) * z.head_dim;
        std::vector<S> dweights(weights.size(), S(0));
        S mean = 0;
        for (std::size_t j = 0; j < weights.size(); ++j) {
          const std::int64_t kj = ((first + j) * z.kv_heads + g) * z.head_dim;
          for (std::int64_t p = 0; p < z.head_dim; ++p) {
            dweights[j] += dy[qi + p] * v[kj + p];
            grads.dv[kj + p] += weights[j] * dy[qi + p];
          }
          mean += weights[j] * dweights[j];
        }
        if (!sinks.empty()) grads.dsinks[a] -= sink * mean;
        for (std::size_t j = 0; j < weights.size(); ++j) {
          const std::int64_t kj = ((first + j) * z.kv_heads + g) * z.head_dim;
          const S ds = weights[j] * (dweights[j] - mean) * scale;
          for (std::int64_t p = 0; p < z.head_dim; ++p) {
            grads.dq[qi + p] += ds * k[kj + p];
            grads.dk[kj + p] += ds * q[qi + p];
          }
        }
      });
  return grads;
}

}  // namespace espalier::reference
