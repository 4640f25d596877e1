// SPDX-License-Identifier: Apache-2.0
// clamp and clamped_swiglu by plain loops, for tests.
//   y = (u + 1) g / (1 + exp(-alpha g))   with g = min(gate, limit), u = clamp(up, -limit, limit)
#pragma once

#include <cmath>
#include <complex>
#include <limits>
#include <vector>

namespace espalier::reference {

template <class S>
S clamp(const S& x, double low, double high) {
  if (std::real(x) < low) return S(low);
  return std::real(x) > high ? S(high) : x;
}
template <class S>
std::vector<S> clamp(std::vector<S> x, double low, double high) {
  for (S& v : x) v = clamp(v, low, high);
  return x;
}

template <class S>
std::vector<S> clamp_backward(std::vector<S> dy, const std::vector<S>& x, double low, double high) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (!(low <= std::real(x[i]) && std::real(x[i]) <= high)) dy[i] = S(0);
  }
  return dy;
}

template <class S>
std::vector<S> clamped_swiglu(const std::vector<S>& gate, const std::vector<S>& up, double alpha,
                              double limit) {
  using std::exp;
  std::vector<S> y;
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const S g = clamp(gate[i], -std::numeric_limits<double>::infinity(), limit);
    y.push_back((clamp(up[i], -limit, limit) + S(1)) * g / (S(1) + exp(S(-alpha) * g)));
  }
  return y;
}

template <class S>
struct ClampedSwiGluGrads {
  std::vector<S> dgate;
  std::vector<S> dup;
};

template <class S>
ClampedSwiGluGrads<S> clamped_swiglu_backward(const std::vector<S>& dy, const std::vector<S>& gate,
                                              const std::vector<S>& up, double alpha,
                                              double limit) {
  using std::exp;
  const double infinity = std::numeric_limits<double>::infinity();
  ClampedSwiGluGrads<S> grads;
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const S g = clamp(gate[i], -infinity, limit), u = clamp(up[i], -limit, limit);
    const S s = S(1) / (S(1) + exp(S(-alpha) * g));
    grads.dgate.push_back(dy[i] * (u + S(1)) * s * (S(1) + S(alpha) * g * (S(1) - s)));
    grads.dup.push_back(dy[i] * g * s);
  }
  grads.dgate = clamp_backward(grads.dgate, gate, -infinity, limit);
  grads.dup = clamp_backward(grads.dup, up, -limit, limit);
  return grads;
}

}  // namespace espalier::reference
