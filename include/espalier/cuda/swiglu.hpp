// SPDX-License-Identifier: Apache-2.0
// clamped_swiglu and swiglu on the device Cuda.
#pragma once

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/clamped_swiglu.hpp>
#include <espalier/kernels/swiglu.hpp>
#include <espalier/ops/clamped_swiglu.hpp>
#include <espalier/ops/swiglu.hpp>

namespace espalier {

template <CudaFloat T>
struct Launch<ClampedSwiGlu, T, Cuda> {
  static Tensor<T, Cuda> forward(const ClampedSwiGlu& op, Saved& saved, const Tensor<T, Cuda>& gate,
                                 const Tensor<T, Cuda>& up) {
    detail::check_gated(ClampedSwiGlu::kName, gate.shape(), up.shape());
    Tensor<T, Cuda> y(gate.shape());
    ESP_CUDA(
        kernels::clamped_swiglu_forward(ptr(y), ptr(gate), ptr(up), static_cast<float>(op.alpha),
                                        cpu::bound_of<T>(op.limit), y.numel(), cuda::stream()));
    saved.tensors = {gate, up};
    return y;
  }
  static std::array<AnyTensor, 2> backward(const ClampedSwiGlu& op, const Saved& saved,
                                           const Tensor<T, Cuda>& dy) {
    const auto gate = saved.get<T, Cuda>(0), up = saved.get<T, Cuda>(1);
    const Tensor<T, Cuda> dgate(dy.shape()), dup(dy.shape());
    ESP_CUDA(kernels::clamped_swiglu_backward(
        ptr(dgate), ptr(dup), ptr(dy), ptr(gate), ptr(up), static_cast<float>(op.alpha),
        cpu::bound_of<T>(op.limit), dy.numel(), cuda::stream()));
    return {dgate, dup};
  }
};

template <CudaFloat T>
struct Launch<SwiGlu, T, Cuda> {
  static Tensor<T, Cuda> forward(const SwiGlu&, Saved& saved, const Tensor<T, Cuda>& gate,
                                 const Tensor<T, Cuda>& up) {
    detail::check_gated(SwiGlu::kName, gate.shape(), up.shape());
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
