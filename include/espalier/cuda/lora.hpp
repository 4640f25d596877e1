// SPDX-License-Identifier: Apache-2.0
// The LoRA branch of a linear layer on the device Cuda: scale · (x' Aᵀ) Bᵀ per group, and its
// gradients, by the kernels of kernels/lora.hpp. Factors and their gradients are f32; x' Aᵀ and its
// gradient have the type of the activations. The branch overwrites its results; the products with
// the weights are added to them.
#pragma once

#include <array>
#include <bit>
#include <vector>

#include <espalier/cuda/elementwise.hpp>
#include <espalier/kernels/lora.hpp>
#include <espalier/ops/linear.hpp>

namespace espalier::cuda::detail {

[[nodiscard]] inline AnyTensor in_f32(const AnyTensor& x) {
  if (x.dtype() == DType::f32) return x;
  AnyTensor y;
  visit_dtype<bf16, f16>("linear on cuda", x.dtype(),
                         [&]<class T>() { y = converted<float>(Tensor<T, Cuda>(x)); });
  return y;
}

template <FloatElement T>
class LoraBranch {
 public:
  /// Over `rows` rows; with_gradients allocates the gradients of the factors.
  LoraBranch(const LinearOp& op, const AnyTensors& in, std::int64_t rows, bool with_gradients)
      : groups_(static_cast<int>(op.groups())),
        rows_(rows),
        width_(in[op.first_a()].shape(1)),
        out_(in[op.first_b()].shape(0)),
        rank_(static_cast<int>(in[op.first_a()].shape(0))),
        scale_(static_cast<float>(op.scale)) {
    for (std::size_t g = 0; g < op.groups(); ++g) {
      factors_.push_back(in_f32(in[op.first_a() + g]));
    }
    for (std::size_t g = 0; g < op.groups(); ++g) {
      factors_.push_back(in_f32(in[op.first_b() + g]));
    }
    for (const AnyTensor& factor : factors_) {
      if (with_gradients) gradients_.push_back(Tensor<float, Cuda>(factor.shape()));
    }
    upload_addresses(op);
  }

  /// x Aᵀ.
  [[nodiscard]] Tensor<T, Cuda> down(const Tensor<T, Cuda>& x) const {
    const Tensor<T, Cuda> s(Shape{rows_, rank_});
    const Workspace workspace(kernels::lora_down_workspace_bytes(rows_, width_, rank_));
    ESP_CUDA(kernels::lora_down(ptr(s), ptr(x), a(), offsets_, groups_, rows_, width_, rank_,
                                workspace.data(), stream()));
    return s;
  }

  /// y = scale · s Bᵀ.
  void up(const Tensor<T, Cuda>& y, const Tensor<T, Cuda>& s) const {
    ESP_CUDA(kernels::lora_up(ptr(y), ptr(s), b(), offsets_, groups_, rows_, out_, rank_, scale_,
                              false, stream()));
  }

  /// The gradient of s, and those of B.
  [[nodiscard]] Tensor<T, Cuda> backward_up(const Tensor<T, Cuda>& dy,
                                            const Tensor<T, Cuda>& s) const {
    const Tensor<T, Cuda> ds(s.shape());
    const Workspace workspace(kernels::lora_backward_up_workspace_bytes(rows_, out_, rank_));
    ESP_CUDA(kernels::lora_backward_up(ptr(ds), table<float* const*>(3), ptr(dy), ptr(s), b(),
                                       offsets_, groups_, rows_, out_, rank_, scale_,
                                       workspace.data(), stream()));
    return ds;
  }

  /// The gradients of A.
  void backward_down(const Tensor<T, Cuda>& ds, const Tensor<T, Cuda>& x) const {
    const Workspace workspace(kernels::lora_backward_down_workspace_bytes(rows_, width_, rank_));
    ESP_CUDA(kernels::lora_backward_down(table<float* const*>(2), ptr(ds), ptr(x), offsets_,
                                         groups_, rows_, width_, rank_, workspace.data(),
                                         stream()));
  }

  /// dx = ds A.
  void backward_input(const Tensor<T, Cuda>& dx, const Tensor<T, Cuda>& ds) const {
    ESP_CUDA(kernels::lora_backward_input(ptr(dx), ptr(ds), a(), offsets_, groups_, rows_, width_,
                                          rank_, false, stream()));
  }

  [[nodiscard]] const AnyTensor& da(std::size_t group) const { return gradients_[group]; }
  [[nodiscard]] const AnyTensor& db(std::size_t group) const {
    return gradients_[static_cast<std::size_t>(groups_) + group];
  }

 private:
  /// One transfer: the addresses of A, B, dA, dB, and the offsets of a layer that has one group.
  void upload_addresses(const LinearOp& op) {
    std::vector<std::int64_t> list;
    for (const auto* tensors : {&factors_, &gradients_}) {
      for (const AnyTensor& t : *tensors) list.push_back(std::bit_cast<std::int64_t>(t.bytes()));
    }
    list.push_back(
        std::bit_cast<std::int64_t>(std::array<std::int32_t, 2>{0, static_cast<int>(rows_)}));
    table_ = Tensor<std::int64_t, Cuda>(Shape{static_cast<std::int64_t>(list.size())}, list);
    offsets_ = op.device_offsets
                   ? ptr(Tensor<std::int32_t, Cuda>(op.device_offsets))
                   : reinterpret_cast<const std::int32_t*>(ptr(table_) + list.size() - 1);
  }
  template <class P>
  P table(int part) const {
    return reinterpret_cast<P>(ptr(table_) + std::int64_t{part} * groups_);
  }
  const float* const* a() const { return table<const float* const*>(0); }
  const float* const* b() const { return table<const float* const*>(1); }

  int groups_;
  std::int64_t rows_, width_, out_;
  int rank_;
  float scale_;
  AnyTensors factors_, gradients_;  // of A, then of B
  Tensor<std::int64_t, Cuda> table_;
  const std::int32_t* offsets_;
};

}  // namespace espalier::cuda::detail
