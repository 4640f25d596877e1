// SPDX-License-Identifier: Apache-2.0
// An op on a device for which Launch is not specialised: the message names the header to include.
// ERROR: mul on this device: include <espalier/cuda/elementwise.hpp>, which defines Launch<Mul>
#include <espalier/ops/mul.hpp>

using namespace espalier;

struct Far {
  static constexpr const char* kName = "far";
  static constexpr bool is_cuda = true;
};
static_assert(Device<Far>);

#ifndef SHOULD_FAIL
template <class T>
struct espalier::Launch<Mul, T, Far> {
  using X = Tensor<T, Far>;
  static X forward(const Mul&, Saved&, const X& a, const X&) { return a; }
  static std::array<AnyTensor, 2> backward(const Mul&, const Saved&, const X& dy) {
    return {dy, dy};
  }
};
#endif

Var<float, Far> use(const Var<float, Far>& x) {
  return mul(x, x);
}
