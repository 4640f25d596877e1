// SPDX-License-Identifier: Apache-2.0
// rope on the device Cuda. The turns are made on the host, once for all layers, as on the CPU.
#pragma once

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/rope.hpp>
#include <espalier/ops/rope.hpp>

namespace espalier::cuda {

namespace detail {
template <FloatElement T>
Tensor<T, Cuda> turned(const Tensor<T, Cuda>& x, const Tensor<float, Cuda>& turns,
                       float direction) {
  Tensor<T, Cuda> y(x.shape());
  ESP_CUDA(kernels::rope(ptr(y), ptr(x), ptr(turns), x.shape(0), x.shape(1), x.shape(2), direction,
                         stream()));
  return y;
}
}  // namespace detail

template <FloatElement T>
Tensor<T, Cuda> launch_forward(Cuda, const Rope& op, Saved& saved, const Tensor<T, Cuda>& x) {
  ESP_REQUIRE(
      x.shape().rank() == 3 && x.shape(2) % 2 == 0 && op.positions.shape() == Shape{x.shape(0)},
      ShapeError, Rope::kName, ": x is ", x.shape(), ", positions is ", op.positions.shape(),
      "; expected [tokens, heads, even head dim] and [tokens]");
  const auto table =
      espalier::detail::RopeTables<float>::instance().get(op.positions, op.theta, x.shape(2));
  const Tensor<float, Cuda> turns = to<Cuda>(table);
  saved.tensors = {turns};
  return detail::turned(x, turns, 1.0f);
}

template <FloatElement T>
std::array<AnyTensor, 1> launch_backward(Cuda, const Rope&, const Saved& saved,
                                         const Tensor<T, Cuda>& dy) {
  return {detail::turned(dy, saved.get<float, Cuda>(0), -1.0f)};
}

}  // namespace espalier::cuda
