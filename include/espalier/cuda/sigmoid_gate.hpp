// SPDX-License-Identifier: Apache-2.0
// sigmoid_gate on the device Cuda.
#pragma once

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/sigmoid_gate.hpp>
#include <espalier/ops/sigmoid_gate.hpp>

namespace espalier {

template <CudaFloat T>
struct Launch<SigmoidGate, T, Cuda> {
  static Tensor<T, Cuda> forward(const SigmoidGate&, Saved& saved, const Tensor<T, Cuda>& x,
                                 const Tensor<T, Cuda>& gate) {
    SigmoidGate::check(x.shape(), gate.shape());
    const std::int64_t n = x.shape(0), h = x.shape(1);
    Tensor<T, Cuda> y(x.shape());
    ESP_CUDA(kernels::sigmoid_gate_forward(ptr(y), ptr(x), ptr(gate), n, h, cuda::stream()));
    saved.tensors = {saved.needs[1] ? x : Tensor<T, Cuda>(), gate};
    return y;
  }
  static std::array<AnyTensor, 2> backward(const SigmoidGate&, const Saved& saved,
                                           const Tensor<T, Cuda>& dy) {
    const auto x = saved.get<T, Cuda>(0), gate = saved.get<T, Cuda>(1);
    Tensor<T, Cuda> dx, dgate;
    if (saved.needs[0]) dx = Tensor<T, Cuda>(dy.shape());
    if (saved.needs[1]) dgate = Tensor<T, Cuda>(gate.shape());
    ESP_CUDA(kernels::sigmoid_gate_backward(ptr(dx), ptr(dgate), ptr(dy), ptr(x), ptr(gate),
                                            dy.shape(0), dy.shape(1), cuda::stream()));
    return {dx, dgate};
  }
};

}  // namespace espalier
