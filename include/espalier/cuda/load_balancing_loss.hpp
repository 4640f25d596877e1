// SPDX-License-Identifier: Apache-2.0
// load_balancing_loss on the device Cuda. The choice of experts is computed anew from the logits.
#pragma once

#include <vector>

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/load_balancing_loss.hpp>
#include <espalier/kernels/router_top_k.hpp>
#include <espalier/ops/load_balancing_loss.hpp>

namespace espalier {

template <CudaFloat T>
struct Launch<LoadBalancingLoss<T>, float, Cuda> {
  static Tensor<float, Cuda> forward(const LoadBalancingLoss<T>& op, Saved& saved,
                                     const AnyTensors& in) {
    const std::int64_t e = in[0].shape(1);
    const Tensor<double, Cuda> sums(Shape{2 * e}, 0.0);
    const std::int64_t rows = detail::total_rows(in);
    for (const AnyTensor& layer : in) {
      const Tensor<T, Cuda> logits(layer);
      const std::int64_t n = logits.shape(0);
      const Tensor<float, Cuda> weights(Shape{n, op.top_k});
      const Tensor<std::int32_t, Cuda> chosen(Shape{n, op.top_k});
      ESP_CUDA(kernels::router_top_k_forward(
          ptr(weights), ptr(chosen), static_cast<std::int32_t*>(nullptr), ptr(logits), nullptr, n,
          int(e), kernels::RouterRule{.top_k = int(op.top_k)}, cuda::stream()));
      const cuda::Workspace workspace(kernels::load_balancing_workspace_bytes(n, int(e)));
      ESP_CUDA(kernels::load_balancing_add(ptr(sums), ptr(logits), ptr(chosen), workspace.data(), n,
                                           int(e), int(op.top_k), cuda::stream()));
    }
    const Tensor<float, Cuda> loss(Shape{1});
    ESP_CUDA(kernels::load_balancing_loss(ptr(loss), ptr(sums), rows, int(e), cuda::stream()));
    saved.tensors = in;
    saved.tensors.push_back(sums);
    return loss;
  }
  static AnyTensors backward(const LoadBalancingLoss<T>&, const Saved& saved,
                             const Tensor<float, Cuda>& dy) {
    const Tensor<double, Cuda> sums(saved.tensors.back());
    const std::span layers(saved.tensors.data(), saved.tensors.size() - 1);
    const std::int64_t rows = detail::total_rows(layers);
    AnyTensors grads;
    for (const AnyTensor& layer : layers) {
      const Tensor<T, Cuda> logits(layer), d(logits.shape());
      ESP_CUDA(kernels::load_balancing_backward(ptr(d), ptr(logits), ptr(sums), ptr(dy), rows,
                                                logits.shape(0), int(logits.shape(1)),
                                                cuda::stream()));
      grads.push_back(d);
    }
    return grads;
  }
};

}  // namespace espalier
