// SPDX-License-Identifier: Apache-2.0
// softmax on the device Cuda.
#pragma once

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/softmax.hpp>
#include <espalier/ops/softmax.hpp>

namespace espalier {

template <CudaFloat T>
struct Launch<Softmax, T, Cuda> {
  static Tensor<T, Cuda> forward(const Softmax&, Saved& saved, const Tensor<T, Cuda>& x) {
    Softmax::check(x.shape());
    Tensor<T, Cuda> y(x.shape());
    ESP_CUDA(kernels::softmax_forward(ptr(y), ptr(x), rows_of(x), x.shape(-1), cuda::stream()));
    saved.tensors = {x};
    return y;
  }
  static std::array<AnyTensor, 1> backward(const Softmax&, const Saved& saved,
                                           const Tensor<T, Cuda>& dy) {
    const auto x = saved.get<T, Cuda>(0);
    const Tensor<T, Cuda> dx(x.shape());
    ESP_CUDA(kernels::softmax_backward(ptr(dx), ptr(dy), ptr(x), rows_of(x), x.shape(-1),
                                       cuda::stream()));
    return {dx};
  }

 private:
  static std::int64_t rows_of(const Tensor<T, Cuda>& x) {
    return x.numel() == 0 ? 0 : x.numel() / x.shape(-1);
  }
};

}  // namespace espalier
