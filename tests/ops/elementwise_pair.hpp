// SPDX-License-Identifier: Apache-2.0
// Two variables of one shape, for the ops of two inputs.
#pragma once

#include <vector>

#include <espalier/autograd/var.hpp>

#include "support/make_tensor.hpp"

namespace espalier::test {

template <class T>
struct ElementwisePair {
  std::int64_t n;
  std::vector<double> a = normal_of<T>(n, 1), b = normal_of<T>(n, 2), dy = normal_of<T>(n, 3);

  /// y, da, db of a function of two variables.
  template <class F>
  std::vector<AnyTensor> run(F f) const {
    const auto va = parameter(make_tensor<T>({n}, a)), vb = parameter(make_tensor<T>({n}, b));
    const auto y = f(va, vb);
    backward(y, make_tensor<T>({n}, dy));
    return {y.value(), va.grad(), vb.grad()};
  }
};

}  // namespace espalier::test
