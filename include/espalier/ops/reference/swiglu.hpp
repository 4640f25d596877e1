// SPDX-License-Identifier: Apache-2.0
// swiglu by plain loops, for tests: y = gate / (1 + exp(-gate)) * up, elementwise.
// Shazeer 2020, arXiv:2002.05202, eq. 6.
#pragma once

#include <cmath>
#include <vector>

namespace espalier::reference {

template <class S>
std::vector<S> swiglu(const std::vector<S>& gate, const std::vector<S>& up) {
  using std::exp;
  std::vector<S> y(gate.size());
  for (std::size_t i = 0; i < y.size(); ++i) y[i] = gate[i] / (S(1) + exp(-gate[i])) * up[i];
  return y;
}

template <class S>
struct SwiGluGrads {
  std::vector<S> dgate;
  std::vector<S> dup;
};

template <class S>
SwiGluGrads<S> swiglu_backward(const std::vector<S>& dy, const std::vector<S>& gate,
                               const std::vector<S>& up) {
  using std::exp;
  SwiGluGrads<S> grads{std::vector<S>(gate.size()), std::vector<S>(gate.size())};
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const S sigmoid = S(1) / (S(1) + exp(-gate[i]));
    grads.dgate[i] = dy[i] * up[i] * sigmoid * (S(1) + gate[i] * (S(1) - sigmoid));
    grads.dup[i] = dy[i] * gate[i] * sigmoid;
  }
  return grads;
}

}  // namespace espalier::reference
