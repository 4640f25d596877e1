// SPDX-License-Identifier: Apache-2.0
// narrow, pad_last and concat_heads by plain loops, for tests.
#pragma once

#include <cstdint>
#include <vector>

namespace espalier::reference {

/// Columns begin .. begin + length - 1 of rows of `width`.
template <class S>
std::vector<S> narrow(const std::vector<S>& x, std::int64_t rows, std::int64_t width,
                      std::int64_t begin, std::int64_t length) {
  std::vector<S> y;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = begin; c < begin + length; ++c) y.push_back(x[r * width + c]);
  }
  return y;
}

/// Rows of `length` at the columns from `begin` on of rows of `width` zeros.
template <class S>
std::vector<S> widen(const std::vector<S>& x, std::int64_t rows, std::int64_t length,
                     std::int64_t begin, std::int64_t width) {
  std::vector<S> y(static_cast<std::size_t>(rows * width), S(0));
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < length; ++c) y[r * width + begin + c] = x[r * length + c];
  }
  return y;
}

/// a [N, A, P1], b [N, B, P2] with B = A or 1.
template <class S>
std::vector<S> concat_heads(const std::vector<S>& a, const std::vector<S>& b, std::int64_t n,
                            std::int64_t heads, std::int64_t b_heads, std::int64_t p1,
                            std::int64_t p2) {
  std::vector<S> y;
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t h = 0; h < heads; ++h) {
      for (std::int64_t c = 0; c < p1; ++c) y.push_back(a[(i * heads + h) * p1 + c]);
      const std::int64_t row = b_heads == 1 ? i : i * heads + h;
      for (std::int64_t c = 0; c < p2; ++c) y.push_back(b[row * p2 + c]);
    }
  }
  return y;
}

template <class S>
struct ConcatHeadsGrads {
  std::vector<S> da;
  std::vector<S> db;
};

template <class S>
ConcatHeadsGrads<S> concat_heads_backward(const std::vector<S>& dy, std::int64_t n,
                                          std::int64_t heads, std::int64_t b_heads, std::int64_t p1,
                                          std::int64_t p2) {
  ConcatHeadsGrads<S> grads;
  grads.db.assign(static_cast<std::size_t>(n * b_heads * p2), S(0));
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t h = 0; h < heads; ++h) {
      const S* row = dy.data() + (i * heads + h) * (p1 + p2);
      for (std::int64_t c = 0; c < p1; ++c) grads.da.push_back(row[c]);
      const std::int64_t to = b_heads == 1 ? i : i * heads + h;
      for (std::int64_t c = 0; c < p2; ++c) grads.db[to * p2 + c] += row[p1 + c];
    }
  }
  return grads;
}

}  // namespace espalier::reference
