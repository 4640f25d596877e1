// SPDX-License-Identifier: Apache-2.0
// The plain loops behind ops/linear.hpp, for any scalar.   x [n, in]   w [out, in]   y [n, out]
#pragma once

#include <cstdint>
#include <vector>

namespace espalier::reference {

template <class S>
std::vector<S> linear(const std::vector<S>& x, const std::vector<S>& w, std::int64_t n,
                      std::int64_t in, std::int64_t out) {
  std::vector<S> y(n * out, S{0});
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t o = 0; o < out; ++o) {
      for (std::int64_t c = 0; c < in; ++c) y[i * out + o] += x[i * in + c] * w[o * in + c];
    }
  }
  return y;
}

/// x Wᵀ + scale (x Aᵀ) Bᵀ.   a [r, in]   b [out, r]
template <class S>
std::vector<S> lora_linear(const std::vector<S>& x, const std::vector<S>& w,
                           const std::vector<S>& a, const std::vector<S>& b, double scale,
                           std::int64_t n, std::int64_t in, std::int64_t out, std::int64_t r) {
  std::vector<S> y = linear(x, w, n, in, out);
  const std::vector<S> update = linear(linear(x, a, n, in, r), b, n, r, out);
  for (std::size_t i = 0; i < y.size(); ++i) y[i] += scale * update[i];
  return y;
}

}  // namespace espalier::reference
