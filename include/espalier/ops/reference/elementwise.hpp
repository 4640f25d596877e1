// SPDX-License-Identifier: Apache-2.0
// add, mul, scale, sum, mean and embedding by plain loops, for tests.
#pragma once

#include <cstdint>
#include <vector>

namespace espalier::reference {

template <class A, class B>
auto add(const std::vector<A>& a, const std::vector<B>& b) {
  std::vector<decltype(a[0] + b[0])> y;
  for (std::size_t i = 0; i < a.size(); ++i) y.push_back(a[i] + b[i]);
  return y;
}

template <class A, class B>
auto mul(const std::vector<A>& a, const std::vector<B>& b) {
  std::vector<decltype(a[0] * b[0])> y;
  for (std::size_t i = 0; i < a.size(); ++i) y.push_back(a[i] * b[i]);
  return y;
}

template <class S>
std::vector<S> scale(std::vector<S> x, double factor) {
  for (S& v : x) v *= factor;
  return x;
}

template <class S>
S sum(const std::vector<S>& x) {
  S total{0};
  for (const S& v : x) total += v;
  return total;
}

template <class S>
S mean(const std::vector<S>& x) {
  return sum(x) / static_cast<double>(x.size());
}

/// Row ids[n] of table [V, H] for every n.
template <class S>
std::vector<S> embedding(const std::vector<int>& ids, const std::vector<S>& table, std::int64_t h) {
  std::vector<S> y;
  for (const int id : ids) {
    for (std::int64_t c = 0; c < h; ++c) y.push_back(table[id * h + c]);
  }
  return y;
}

/// Gradient of the table [V, H].
template <class S>
std::vector<S> embedding_backward(const std::vector<int>& ids, const std::vector<S>& dy,
                                  std::int64_t vocabulary, std::int64_t h) {
  std::vector<S> d(vocabulary * h, S{0});
  for (std::size_t n = 0; n < ids.size(); ++n) {
    for (std::int64_t c = 0; c < h; ++c) d[ids[n] * h + c] += dy[n * h + c];
  }
  return d;
}

}  // namespace espalier::reference
