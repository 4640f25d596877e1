// SPDX-License-Identifier: Apache-2.0
// A batch of matrix products by plain loops, for tests: y [B, M, N] = a b + c, with a [B, M, K] or
// its transposes [B, K, M], b [B, K, N] or [B, N, K]; an empty c counts as 0.
#pragma once

#include <cstdint>
#include <vector>

namespace espalier::reference {

struct MatmulShape {
  std::int64_t batch, m, n, k;
  bool transpose_a, transpose_b;
};

template <class S>
std::vector<S> matmul(const MatmulShape& s, const std::vector<S>& a, const std::vector<S>& b,
                      const std::vector<S>& c = {}) {
  std::vector<S> y(s.batch * s.m * s.n, S{0});
  for (std::int64_t at = 0; at < s.batch * s.m * s.n; ++at) {
    const std::int64_t l = at / (s.m * s.n), i = at / s.n % s.m, j = at % s.n;
    for (std::int64_t p = 0; p < s.k; ++p) {
      y[at] += a[l * s.m * s.k + (s.transpose_a ? p * s.m + i : i * s.k + p)] *
               b[l * s.k * s.n + (s.transpose_b ? j * s.k + p : p * s.n + j)];
    }
    if (!c.empty()) y[at] += c[at];
  }
  return y;
}

}  // namespace espalier::reference
