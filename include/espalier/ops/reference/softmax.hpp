// SPDX-License-Identifier: Apache-2.0
// softmax by plain loops, for tests: of every row of x [rows, n]. The largest real part is taken
// out first; it is a constant, which changes no value and no derivative.
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>
#include <vector>

namespace espalier::reference {

namespace detail {
inline double real_part(double x) {
  return x;
}
inline double real_part(const std::complex<double>& x) {
  return x.real();
}
template <class S>
double largest(const S* row, std::int64_t n) {
  double top = real_part(row[0]);
  for (std::int64_t i = 1; i < n; ++i) top = real_part(row[i]) > top ? real_part(row[i]) : top;
  return top;
}
}  // namespace detail

template <class S>
std::vector<S> softmax_row(const S* row, std::int64_t n) {
  const double top = detail::largest(row, n);
  std::vector<S> p(row, row + n);
  S total{0};
  for (S& v : p) total += v = std::exp(v - top);
  for (S& v : p) v /= total;
  return p;
}

template <class S>
std::vector<S> softmax(const std::vector<S>& x, std::int64_t n) {
  std::vector<S> y;
  for (std::size_t i = 0; i < x.size(); i += static_cast<std::size_t>(n)) {
    for (const S& v : softmax_row(x.data() + i, n)) y.push_back(v);
  }
  return y;
}

template <class S>
S log_sum_exp(const S* row, std::int64_t n) {
  const double top = detail::largest(row, n);
  S total{0};
  for (std::int64_t i = 0; i < n; ++i) total += std::exp(row[i] - top);
  return top + std::log(total);
}

}  // namespace espalier::reference
