// SPDX-License-Identifier: Apache-2.0
// narrow, pad_last and concat_heads on the device Cuda.
#pragma once

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/column_blocks.hpp>
#include <espalier/ops/concat_heads.hpp>
#include <espalier/ops/narrow.hpp>

namespace espalier::cuda::detail {

/// Rows of zeros with columns [source, source + count) of x copied to column `at`.
template <FloatElement T>
Tensor<T, Cuda> placed(const Tensor<T, Cuda>& x, std::int64_t source, std::int64_t count,
                       const Shape& shape, std::int64_t at = 0) {
  Tensor<T, Cuda> y(shape);
  ESP_CUDA(kernels::place_columns(ptr(y), {shape[-1], at}, ptr(x), {x.shape(-1), source},
                                  espalier::detail::rows_of(x.shape()), count, stream()));
  return y;
}

}  // namespace espalier::cuda::detail

namespace espalier {

template <CudaFloat T>
struct Launch<Narrow, T, Cuda> {
  static Tensor<T, Cuda> forward(const Narrow& op, Saved& saved, const Tensor<T, Cuda>& x) {
    saved.tensors = {only_shape(x)};
    return cuda::detail::placed(x, op.begin, op.length, op.output(x.shape()));
  }
  static std::array<AnyTensor, 1> backward(const Narrow& op, const Saved& saved,
                                           const Tensor<T, Cuda>& dy) {
    return {cuda::detail::placed(dy, 0, op.length, saved.tensors[0].shape(), op.begin)};
  }
};

template <CudaFloat T>
struct Launch<PadLast, T, Cuda> {
  static Tensor<T, Cuda> forward(const PadLast& op, Saved& saved, const Tensor<T, Cuda>& x) {
    const Shape shape = op.output(x.shape());
    saved.tensors = {only_shape(x)};
    return cuda::detail::placed(x, 0, x.shape(-1), shape);
  }
  static std::array<AnyTensor, 1> backward(const PadLast&, const Saved& saved,
                                           const Tensor<T, Cuda>& dy) {
    const Shape& shape = saved.tensors[0].shape();
    return {cuda::detail::placed(dy, 0, shape[-1], shape)};
  }
};

template <CudaFloat T>
struct Launch<ConcatHeads, T, Cuda> {
  static Tensor<T, Cuda> forward(const ConcatHeads&, Saved& saved, const Tensor<T, Cuda>& a,
                                 const Tensor<T, Cuda>& b) {
    Tensor<T, Cuda> y(ConcatHeads::output(a.shape(), b.shape()));
    ESP_CUDA(kernels::concat_heads(ptr(y), ptr(a), ptr(b), a.shape(0), a.shape(1), b.shape(1),
                                   a.shape(2), b.shape(2), cuda::stream()));
    saved.tensors = {only_shape(a), only_shape(b)};
    return y;
  }
  static std::array<AnyTensor, 2> backward(const ConcatHeads&, const Saved& saved,
                                           const Tensor<T, Cuda>& dy) {
    const Shape &a = saved.tensors[0].shape(), &b = saved.tensors[1].shape();
    std::array<AnyTensor, 2> grads;
    if (saved.needs[0]) grads[0] = cuda::detail::placed(dy, 0, a[2], a);
    if (!saved.needs[1]) return grads;
    if (b[1] == a[1]) {
      grads[1] = cuda::detail::placed(dy, a[2], b[2], b);
    } else {
      const Tensor<T, Cuda> db(b);
      ESP_CUDA(kernels::sum_heads(ptr(db), ptr(dy), {dy.shape(2), a[2]}, a[0], a[1], b[2],
                                  cuda::stream()));
      grads[1] = db;
    }
    return grads;
  }
};

}  // namespace espalier
