// SPDX-License-Identifier: Apache-2.0
// The same elements under another shape; shares the memory.
#pragma once

#include <espalier/autograd/var.hpp>

namespace espalier {

struct Reshape {
  static constexpr const char* kName = "reshape";
  static constexpr bool kAnyDevice = true;  // touches no element
  Shape shape;

  template <Element T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& x) const {
    // Only the shape is needed; a tensor of no elements carries it without holding the memory.
    saved.tensors = {only_shape(x)};
    return x.reshaped(shape);
  }
  template <Element T, Device D>
  std::array<AnyTensor, 1> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    return {dy.reshaped(saved.tensors[0].shape())};
  }
};

/// @throws ShapeError when the number of elements differs.
template <Element T, Device D>
[[nodiscard]] Var<T, D> reshape(const Var<T, D>& x, Shape shape) {
  return apply(Reshape{shape}, x);
}

}  // namespace espalier
