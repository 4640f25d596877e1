// SPDX-License-Identifier: Apache-2.0
// add_bias on the device Cuda. The biases of a call are of one type. Their gradients are summed in
// f32; those of several groups are rows of one tensor.
#pragma once

#include <vector>

#include <espalier/cuda/device.hpp>
#include <espalier/cuda/elementwise.hpp>
#include <espalier/kernels/bias.hpp>
#include <espalier/ops/bias.hpp>

namespace espalier {

template <CudaFloat T>
struct Launch<AddBias, T, Cuda> {
  static Tensor<T, Cuda> forward(const AddBias& op, Saved& saved, const AnyTensors& in) {
    op.check(in);
    const Tensor<T, Cuda> x(in[0]);
    const std::int64_t n = x.shape(0), h = x.shape(1);
    Tensor<T, Cuda> y(x.shape());
    cuda::detail::visit_weight<T>(AddBias::kName, in[1].dtype(), [&]<class B>() {
      if (!op.device_offsets) {
        const Tensor<B, Cuda> bias(in[1]);
        ESP_CUDA(kernels::add_bias(ptr(y), ptr(x), ptr(bias), n, h, cuda::stream()));
        return;
      }
      std::vector<std::int64_t> list;
      for (std::size_t g = 0; g < op.groups(); ++g) {
        list.push_back(reinterpret_cast<std::int64_t>(Tensor<B, Cuda>(in[1 + g]).bytes()));
      }
      const Tensor<std::int64_t, Cuda> pointers(Shape{static_cast<std::int64_t>(list.size())},
                                                list);
      ESP_CUDA(kernels::add_bias_grouped(
          ptr(y), ptr(x), reinterpret_cast<const cuda::kernel_t<B>* const*>(pointers.bytes()),
          ptr(Tensor<std::int32_t, Cuda>(op.device_offsets)), int(op.groups()), n, h,
          cuda::stream()));
    });
    saved.tensors = AddBias::types(in);
    return y;
  }
  static AnyTensors backward(const AddBias& op, const Saved& saved, const Tensor<T, Cuda>& dy) {
    AnyTensors grads(saved.needs.size());
    grads[0] = dy;
    const auto groups = static_cast<std::int64_t>(op.groups());
    bool wanted = false;
    for (std::size_t i = 1; i < grads.size(); ++i) wanted = wanted || saved.needs[i];
    if (!wanted) return grads;
    const std::int64_t n = dy.shape(0), h = dy.shape(1);
    const Tensor<float, Cuda> db(Shape{groups, h});
    const cuda::Workspace workspace(kernels::bias_workspace_bytes(n, int(groups), h));
    Tensor<std::int32_t, Cuda> offsets;
    if (op.device_offsets) offsets = Tensor<std::int32_t, Cuda>(op.device_offsets);
    ESP_CUDA(kernels::bias_backward(ptr(db), ptr(dy), ptr(offsets), int(groups), n, h,
                                    workspace.data(), cuda::stream()));
    for (std::int64_t g = 0; g < groups; ++g) {
      const auto i = static_cast<std::size_t>(g);
      if (!saved.needs[1 + i]) continue;
      const AnyTensor sum = groups == 1 ? db.AnyTensor::reshaped(Shape{h})
                                        : db.AnyTensor::rows(g, g + 1).reshaped(Shape{h});
      grads[1 + i] = cuda::detail::in_type(sum, saved.tensors[i].dtype());
    }
    return grads;
  }
};

}  // namespace espalier
