// SPDX-License-Identifier: Apache-2.0
// An op that runs forward on a device and has no backward there: the host loop would run on the
// device's pointers.
// ERROR: no launch_backward for this device
#include <espalier/ops/mul.hpp>

using namespace espalier;

struct Far {
  static constexpr const char* kName = "far";
  static constexpr bool is_cuda = true;
};
static_assert(Device<Far>);

Tensor<float, Far> launch_forward(Far, const Mul&, Saved&, const Tensor<float, Far>& a,
                                  const Tensor<float, Far>&) {
  return a;
}
#ifndef SHOULD_FAIL
std::array<AnyTensor, 2> launch_backward(Far, const Mul&, const Saved&,
                                         const Tensor<float, Far>& dy) {
  return {dy, dy};
}
#endif

Var<float, Far> use(const Var<float, Far>& x) {
  return mul(x, x);
}
