// SPDX-License-Identifier: Apache-2.0
// Gradients of scalar functions by numbers alone, to check those written by hand.
#pragma once

#include <complex>
#include <cstddef>
#include <vector>

namespace espalier::test {

/// F'(x) = Im F(x + ih) / h, exact to rounding because nothing is subtracted. `f` maps a complex
/// vector to a complex number and must be analytic: no abs, no max over values that carry the step.
template <class F>
std::vector<double> complex_step_grad(F&& f, const std::vector<double>& x) {
  constexpr double kStep = 1e-40;
  std::vector<std::complex<double>> z(x.begin(), x.end());
  std::vector<double> grad(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    z[i].imag(kStep);
    grad[i] = f(z).imag() / kStep;
    z[i].imag(0.0);
  }
  return grad;
}

/// Central differences, for functions that are not analytic; good to about 1e-9 away from kinks.
template <class F>
std::vector<double> central_difference_grad(F&& f, std::vector<double> x, double step = 1e-5) {
  std::vector<double> grad(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double before = x[i];
    x[i] = before + step;
    const double above = f(x);
    x[i] = before - step;
    const double below = f(x);
    x[i] = before;
    grad[i] = (above - below) / (2 * step);
  }
  return grad;
}

/// `sum_i a_i * b_i`, the usual way to make a scalar of an output. Mixed real and complex vectors.
template <class A, class B>
auto dot(const std::vector<A>& a, const std::vector<B>& b) {
  decltype(a[0] * b[0]) sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

template <class From>
std::vector<std::complex<double>> to_complex(const std::vector<From>& x) {
  return {x.begin(), x.end()};
}

}  // namespace espalier::test
