// SPDX-License-Identifier: Apache-2.0
// router_z_loss on the device Cuda.
#pragma once

#include <vector>

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/router_z_loss.hpp>
#include <espalier/ops/router_z_loss.hpp>

namespace espalier {

template <CudaFloat T>
struct Launch<RouterZLoss<T>, float, Cuda> {
  static Tensor<float, Cuda> forward(const RouterZLoss<T>&, Saved& saved, const AnyTensors& in) {
    const std::int64_t rows = detail::total_rows(in);
    const Tensor<float, Cuda> log_sums(Shape{rows}), loss(Shape{1});
    std::int64_t first = 0;
    for (const AnyTensor& layer : in) {
      const Tensor<T, Cuda> logits(layer);
      ESP_CUDA(kernels::log_sum_exp(ptr(log_sums) + first, ptr(logits), logits.shape(0),
                                    int(logits.shape(1)), cuda::stream()));
      first += logits.shape(0);
    }
    const cuda::Workspace workspace(kernels::sum_workspace_bytes(rows));
    ESP_CUDA(
        kernels::router_z_loss(ptr(loss), ptr(log_sums), rows, workspace.data(), cuda::stream()));
    saved.tensors = in;
    return loss;
  }
  static AnyTensors backward(const RouterZLoss<T>&, const Saved& saved,
                             const Tensor<float, Cuda>& dy) {
    const std::int64_t rows = detail::total_rows(saved.tensors);
    AnyTensors grads;
    for (const AnyTensor& layer : saved.tensors) {
      const Tensor<T, Cuda> logits(layer), d(logits.shape());
      ESP_CUDA(kernels::router_z_loss_backward(ptr(d), ptr(logits), ptr(dy), rows, logits.shape(0),
                                               int(logits.shape(1)), cuda::stream()));
      grads.push_back(d);
    }
    return grads;
  }
};

}  // namespace espalier
