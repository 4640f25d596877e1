// SPDX-License-Identifier: Apache-2.0
// rope by plain loops, for tests: pair (i, i + P/2) of every head is turned by position *
// inv_freq_i.
//   x, y: [N, A, P]   positions: [N]
// Su et al. 2021, arXiv:2104.09864, in the half-rotation layout. The angle is rounded to fp32 as
// the models that were trained with it do; cosine and sine of that angle are exact here.
#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

namespace espalier::reference {

/// Turns forward (`direction` = 1), or back (-1), which is the gradient.
template <class S>
std::vector<S> rope(const std::vector<S>& x, const std::vector<std::int32_t>& positions,
                    std::int64_t heads, std::int64_t head_dim, double theta, double direction = 1) {
  std::vector<S> y(x.size());
  const std::int64_t half = head_dim / 2;
  for (std::size_t n = 0; n < positions.size(); ++n) {
    for (std::int64_t a = 0; a < heads; ++a) {
      for (std::int64_t i = 0; i < half; ++i) {
        const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
        const float inv_freq = 1.0f / std::pow(static_cast<float>(theta), exponent);
        const float angle = inv_freq * static_cast<float>(positions[n]);
        const S c = std::cos(static_cast<double>(angle));
        const S s = direction * std::sin(static_cast<double>(angle));
        const std::size_t first = (n * heads + a) * head_dim + i;
        y[first] = x[first] * c - x[first + half] * s;
        y[first + half] = x[first + half] * c + x[first] * s;
      }
    }
  }
  return y;
}

}  // namespace espalier::reference
