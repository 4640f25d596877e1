// SPDX-License-Identifier: Apache-2.0
// An op with two inputs whose backward returns one gradient.
// ERROR: Op::backward must return one gradient per input
#include <espalier/autograd/var.hpp>

using namespace espalier;

#ifdef SHOULD_FAIL
inline constexpr std::size_t kGradients = 1;
#else
inline constexpr std::size_t kGradients = 2;
#endif

struct Left {
  static constexpr const char* kName = "left";
  Tensor<float> forward(Saved&, const Tensor<float>& x, const Tensor<float>&) const { return x; }
  std::array<AnyTensor, kGradients> backward(const Saved&, const Tensor<float>& dy) const {
    return {dy};
  }
};

Var<float> use(const Var<float>& x, const Var<float>& y) {
  return apply(Left{}, x, y);
}
