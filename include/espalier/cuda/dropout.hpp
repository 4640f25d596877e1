// SPDX-License-Identifier: Apache-2.0
// dropout on the device Cuda, with the draws of the CPU.
#pragma once

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/dropout.hpp>
#include <espalier/ops/dropout.hpp>

namespace espalier {

template <CudaFloat T>
struct Launch<Dropout, T, Cuda> {
  static Tensor<T, Cuda> forward(const Dropout& op, Saved&, const Tensor<T, Cuda>& x) {
    ESP_REQUIRE(op.p >= 0 && op.p < 1, Error, Dropout::kName, ": p is ", op.p,
                ", expected 0 <= p < 1");
    return dropped(op, x);
  }
  static std::array<AnyTensor, 1> backward(const Dropout& op, const Saved&,
                                           const Tensor<T, Cuda>& dy) {
    return {dropped(op, dy)};
  }

 private:
  static Tensor<T, Cuda> dropped(const Dropout& op, const Tensor<T, Cuda>& x) {
    Tensor<T, Cuda> y(x.shape());
    ESP_CUDA(kernels::dropout(ptr(y), ptr(x), op.p, op.seed, op.stream, x.numel(), cuda::stream()));
    return y;
  }
};

}  // namespace espalier
