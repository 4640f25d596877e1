// SPDX-License-Identifier: Apache-2.0
// rms_norm by plain loops, for tests: y = x / sqrt(mean(x^2) + eps) * w, per row.
//   x, y: [N, H]   w: [H]
// Zhang & Sennrich 2019, arXiv:1910.07467, eq. 4. `S` is double, or std::complex<double> for
// complex steps.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace espalier::reference {

template <class S>
std::vector<S> rms_norm(const std::vector<S>& x, const std::vector<S>& w, double eps) {
  using std::sqrt;
  const std::size_t h = w.size();
  std::vector<S> y(x.size());
  for (std::size_t first = 0; first < x.size(); first += h) {
    S sum_sq = 0;
    for (std::size_t c = 0; c < h; ++c) sum_sq += x[first + c] * x[first + c];
    const S r = S(1) / sqrt(sum_sq / S(static_cast<double>(h)) + S(eps));
    for (std::size_t c = 0; c < h; ++c) y[first + c] = x[first + c] * r * w[c];
  }
  return y;
}

template <class S>
struct RmsNormGrads {
  std::vector<S> dx;  // [N, H]
  std::vector<S> dw;  // [H]
};

template <class S>
RmsNormGrads<S> rms_norm_backward(const std::vector<S>& dy, const std::vector<S>& x,
                                  const std::vector<S>& w, double eps) {
  using std::sqrt;
  const std::size_t h = w.size();
  RmsNormGrads<S> grads{std::vector<S>(x.size()), std::vector<S>(h, S(0))};
  for (std::size_t first = 0; first < x.size(); first += h) {
    S sum_sq = 0, dot = 0;
    for (std::size_t c = 0; c < h; ++c) {
      sum_sq += x[first + c] * x[first + c];
      dot += w[c] * dy[first + c] * x[first + c];
    }
    const S r = S(1) / sqrt(sum_sq / S(static_cast<double>(h)) + S(eps));
    for (std::size_t c = 0; c < h; ++c) {
      const std::size_t i = first + c;
      grads.dx[i] = r * w[c] * dy[i] - x[i] * r * r * r * dot / S(static_cast<double>(h));
      grads.dw[c] += dy[i] * x[i] * r;
    }
  }
  return grads;
}

}  // namespace espalier::reference
