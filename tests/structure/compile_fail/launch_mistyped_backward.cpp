// SPDX-License-Identifier: Apache-2.0
// A user's op, without a message of its own, and a Launch whose backward returns one gradient for
// two inputs.
// ERROR: no Launch<Op, T, D> with a forward and a backward of these types .*backward
#include <espalier/autograd/var.hpp>

using namespace espalier;

struct Far {
  static constexpr const char* kName = "far";
  static constexpr bool is_cuda = true;
};
static_assert(Device<Far>);

struct Left {
  static constexpr const char* kName = "left";
  template <Element T, Device D>
  Tensor<T, D> forward(Saved&, const Tensor<T, D>& a, const Tensor<T, D>&) const {
    return a;
  }
  template <Element T, Device D>
  std::array<AnyTensor, 2> backward(const Saved&, const Tensor<T, D>& dy) const {
    return {dy, AnyTensor()};
  }
};

#ifdef SHOULD_FAIL
inline constexpr std::size_t kGradients = 1;
#else
inline constexpr std::size_t kGradients = 2;
#endif

template <class T>
struct espalier::Launch<Left, T, Far> {
  using X = Tensor<T, Far>;
  static X forward(const Left&, Saved&, const X& a, const X&) { return a; }
  static std::array<AnyTensor, kGradients> backward(const Left&, const Saved&, const X& dy) {
    return {dy};
  }
};

Var<float, Far> use(const Var<float, Far>& x) {
  return apply(Left{}, x, x);
}
