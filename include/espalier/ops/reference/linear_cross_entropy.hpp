// SPDX-License-Identifier: Apache-2.0
// linear_cross_entropy by plain loops, for tests: the sum over rows whose target is not -1 of
// -log softmax(x w^T)[target].
//   x: [N, H]   w: [V, H]   targets: [N]
// Subtracting the largest logit changes nothing but the range.
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstdint>
#include <vector>

namespace espalier::reference {

/// log softmax(x w^T) of row `n`: V values.
template <class S>
std::vector<S> linear_log_softmax_row(const std::vector<S>& x, const std::vector<S>& w,
                                      std::int64_t n, std::int64_t h) {
  using std::exp;
  using std::log;
  std::vector<S> z(w.size() / h, S(0));
  double largest = -1e300;
  for (std::size_t v = 0; v < z.size(); ++v) {
    for (std::int64_t c = 0; c < h; ++c) z[v] += x[n * h + c] * w[v * h + c];
    largest = std::max(largest, std::real(z[v]));
  }
  S sum = 0;
  for (const S& zv : z) sum += exp(zv - S(largest));
  for (S& zv : z) zv -= S(largest) + log(sum);
  return z;
}

template <class S>
S linear_cross_entropy(const std::vector<S>& x, const std::vector<S>& w,
                       const std::vector<std::int32_t>& targets, std::int64_t h) {
  S loss = 0;
  for (std::size_t n = 0; n < targets.size(); ++n) {
    if (targets[n] >= 0) loss -= linear_log_softmax_row(x, w, n, h)[targets[n]];
  }
  return loss;
}

template <class S>
struct LinearCrossEntropyGrads {
  std::vector<S> dx, dw;
};

template <class S>
LinearCrossEntropyGrads<S> linear_cross_entropy_backward(const S& dy, const std::vector<S>& x,
                                                         const std::vector<S>& w,
                                                         const std::vector<std::int32_t>& targets,
                                                         std::int64_t h) {
  using std::exp;
  LinearCrossEntropyGrads<S> grads{std::vector<S>(x.size(), S(0)), std::vector<S>(w.size(), S(0))};
  for (std::size_t n = 0; n < targets.size(); ++n) {
    if (targets[n] < 0) continue;
    const std::vector<S> log_p = linear_log_softmax_row(x, w, n, h);
    for (std::size_t v = 0; v < log_p.size(); ++v) {
      const S dz = dy * (exp(log_p[v]) - S(static_cast<std::int32_t>(v) == targets[n] ? 1 : 0));
      for (std::int64_t c = 0; c < h; ++c) {
        grads.dx[n * h + c] += dz * w[v * h + c];
        grads.dw[v * h + c] += dz * x[n * h + c];
      }
    }
  }
  return grads;
}

}  // namespace espalier::reference
