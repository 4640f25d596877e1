// SPDX-License-Identifier: Apache-2.0
// sum on the device Cuda.
#pragma once

#include <vector>

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/sum.hpp>
#include <espalier/ops/sum.hpp>

namespace espalier {

template <CudaFloat T>
struct Launch<Sum<T>, float, Cuda> {
  static Tensor<float, Cuda> forward(const Sum<T>&, Saved& saved, const AnyTensors& in) {
    const Tensor<T, Cuda> x(in[0]);
    Tensor<float, Cuda> y(Shape{1});
    const cuda::Workspace workspace(kernels::sum_workspace_bytes(x.numel()));
    ESP_CUDA(kernels::sum(ptr(y), ptr(x), x.numel(), workspace.data(), cuda::stream()));
    saved.tensors = {only_shape(x)};
    return y;
  }
  static AnyTensors backward(const Sum<T>&, const Saved& saved, const Tensor<float, Cuda>& dy) {
    const Tensor<T, Cuda> dx(saved.tensors[0].shape());
    ESP_CUDA(kernels::sum_backward(ptr(dx), ptr(dy), dx.numel(), cuda::stream()));
    return {dx};
  }
};

}  // namespace espalier
