// SPDX-License-Identifier: Apache-2.0
// sigmoid_gate by plain loops, for tests: y = x / (1 + exp(-gate)).        x [N, H]   gate [N]
#pragma once

#include <cmath>
#include <vector>

namespace espalier::reference {

template <class S>
std::vector<S> sigmoid_gate(const std::vector<S>& x, const std::vector<S>& gate) {
  using std::exp;
  std::vector<S> y;
  const std::size_t h = gate.empty() ? 0 : x.size() / gate.size();
  for (std::size_t i = 0; i < x.size(); ++i) y.push_back(x[i] / (S(1) + exp(-gate[i / h])));
  return y;
}

template <class S>
struct SigmoidGateGrads {
  std::vector<S> dx;
  std::vector<S> dgate;
};

template <class S>
SigmoidGateGrads<S> sigmoid_gate_backward(const std::vector<S>& dy, const std::vector<S>& x,
                                          const std::vector<S>& gate) {
  using std::exp;
  SigmoidGateGrads<S> grads{{}, std::vector<S>(gate.size(), S(0))};
  const std::size_t h = gate.empty() ? 0 : x.size() / gate.size();
  for (std::size_t i = 0; i < x.size(); ++i) {
    const S s = S(1) / (S(1) + exp(-gate[i / h]));
    grads.dx.push_back(dy[i] * s);
    grads.dgate[i / h] += dy[i] * x[i] * s * (S(1) - s);
  }
  return grads;
}

}  // namespace espalier::reference
