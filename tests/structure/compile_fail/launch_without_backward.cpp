// SPDX-License-Identifier: Apache-2.0
// A Launch without a backward: the host loop would follow pointers of the device.
// ERROR: mul on this device: include <espalier/cuda/elementwise.hpp>, which defines Launch<Mul>
#include <espalier/ops/mul.hpp>

using namespace espalier;

struct Far {
  static constexpr const char* kName = "far";
  static constexpr bool is_cuda = true;
};
static_assert(Device<Far>);

template <class T>
struct espalier::Launch<Mul, T, Far> {
  using X = Tensor<T, Far>;
  static X forward(const Mul&, Saved&, const X& a, const X&) { return a; }
#ifndef SHOULD_FAIL
  static std::array<AnyTensor, 2> backward(const Mul&, const Saved&, const X& dy) {
    return {dy, dy};
  }
#endif
};

Var<float, Far> use(const Var<float, Far>& x) {
  return mul(x, x);
}
