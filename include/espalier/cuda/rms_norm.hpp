// SPDX-License-Identifier: Apache-2.0
// rms_norm on the device Cuda.
#pragma once

#include <vector>

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/rms_norm.hpp>
#include <espalier/ops/rms_norm.hpp>

namespace espalier {

template <CudaFloat T>
struct Launch<RmsNormOp, T, Cuda> {
  static Tensor<T, Cuda> forward(const RmsNormOp& op, Saved& saved, const AnyTensors& in) {
    const Tensor<T, Cuda> x(in[0]);
    ESP_REQUIRE(x.shape().rank() == 2 && in[1].shape() == Shape{x.shape(1)}, ShapeError,
                RmsNormOp::kName, ": w is ", in[1].shape(), ", x is ", x.shape(),
                "; expected x [rows, hidden] and w [hidden]");
    const std::int64_t n = x.shape(0), h = x.shape(1);
    Tensor<T, Cuda> y(x.shape());
    const Tensor<float, Cuda> r(Shape{n});
    cuda::detail::visit_weight<T>(RmsNormOp::kName, in[1].dtype(), [&]<class W>() {
      const Tensor<W, Cuda> w(in[1]);
      ESP_CUDA(
          kernels::rms_norm_forward(ptr(y), ptr(r), ptr(x), ptr(w), n, h, op.eps, cuda::stream()));
    });
    saved.tensors = {x, in[1], r};
    return y;
  }
  static AnyTensors backward(const RmsNormOp&, const Saved& saved, const Tensor<T, Cuda>& dy) {
    const auto x = saved.get<T, Cuda>(0);
    const auto r = saved.get<float, Cuda>(2);
    const std::int64_t n = x.shape(0), h = x.shape(1);
    AnyTensors grads(2);
    if (saved.needs[0]) {
      const Tensor<T, Cuda> dx(x.shape());
      cuda::detail::visit_weight<T>(RmsNormOp::kName, saved.tensors[1].dtype(), [&]<class W>() {
        const auto w = saved.get<W, Cuda>(1);
        ESP_CUDA(kernels::rms_norm_backward(ptr(dx), ptr(dy), ptr(x), ptr(w), ptr(r), n, h,
                                            cuda::stream()));
      });
      grads[0] = dx;
    }
    if (saved.needs[1]) {
      const Tensor<float, Cuda> dw(Shape{h});
      const cuda::Workspace workspace(kernels::rms_norm_gain_workspace_bytes(n, h));
      ESP_CUDA(kernels::rms_norm_gain_backward(ptr(dw), ptr(dy), ptr(x), ptr(r), workspace.data(),
                                               n, h, cuda::stream()));
      grads[1] = dw;
    }
    return grads;
  }
};

}  // namespace espalier
