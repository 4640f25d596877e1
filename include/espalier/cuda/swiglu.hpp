// SPDX-License-Identifier: Apache-2.0
// swiglu on the device Cuda.
#pragma once

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/swiglu.hpp>
#include <espalier/ops/swiglu.hpp>

namespace espalier {

template <CudaFloat T>
struct Launch<SwiGlu, T, Cuda> {
  static Tensor<T, Cuda> forward(const SwiGlu&, Saved& saved, const Tensor<T, Cuda>& gate,
                                 const Tensor<T, Cuda>& up) {
    ESP_REQUIRE(gate.shape() == up.shape(), ShapeError, SwiGlu::kName, ": gate is ", gate.shape(),
                ", up is ", up.shape(), "; expected equal shapes");
    Tensor<T, Cuda> y(gate.shape());
    ESP_CUDA(kernels::swiglu_forward(ptr(y), ptr(gate), ptr(up), y.numel(), cuda::stream()));
    saved.tensors = {gate, up};
    return y;
  }
  static std::array<AnyTensor, 2> backward(const SwiGlu&, const Saved& saved,
                                           const Tensor<T, Cuda>& dy) {
    const auto gate = saved.get<T, Cuda>(0), up = saved.get<T, Cuda>(1);
    const Tensor<T, Cuda> dgate(dy.shape()), dup(dy.shape());
    ESP_CUDA(kernels::swiglu_backward(ptr(dgate), ptr(dup), ptr(dy), ptr(gate), ptr(up), dy.numel(),
                                      cuda::stream()));
    return {dgate, dup};
  }
};

}  // namespace espalier
