// SPDX-License-Identifier: Apache-2.0
// narrow, pad_last and concat_heads on the device Cuda.
#pragma once

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/column_blocks.hpp>
#include <espalier/ops/concat_heads.hpp>
#include <espalier/ops/narrow.hpp>

namespace espalier::cuda {

namespace detail {
/// `count` columns of x, from `source` on, at `at` of rows of zeros.
template <FloatElement T>
Tensor<T, Cuda> placed(const Tensor<T, Cuda>& x, std::int64_t source, std::int64_t count,
                       const Shape& shape, std::int64_t at = 0) {
  Tensor<T, Cuda> y(shape);
  ESP_CUDA(kernels::place_columns(ptr(y), {shape[-1], at}, ptr(x), {x.shape(-1), source},
                                  espalier::detail::rows_of(x.shape()), count, stream()));
  return y;
}
inline AnyTensor only_shape(const AnyTensor& x) {
  return {nullptr, x.shape(), x.dtype()};
}
}  // namespace detail

template <FloatElement T>
Tensor<T, Cuda> launch_forward(Cuda, const Narrow& op, Saved& saved, const Tensor<T, Cuda>& x) {
  saved.tensors = {detail::only_shape(x)};
  return detail::placed(x, op.begin, op.length, op.output(x.shape()));
}
template <FloatElement T>
std::array<AnyTensor, 1> launch_backward(Cuda, const Narrow& op, const Saved& saved,
                                         const Tensor<T, Cuda>& dy) {
  return {detail::placed(dy, 0, op.length, saved.tensors[0].shape(), op.begin)};
}

template <FloatElement T>
Tensor<T, Cuda> launch_forward(Cuda, const PadLast& op, Saved& saved, const Tensor<T, Cuda>& x) {
  const Shape shape = op.output(x.shape());
  saved.tensors = {detail::only_shape(x)};
  return detail::placed(x, 0, x.shape(-1), shape);
}
template <FloatElement T>
std::array<AnyTensor, 1> launch_backward(Cuda, const PadLast&, const Saved& saved,
                                         const Tensor<T, Cuda>& dy) {
  const Shape& shape = saved.tensors[0].shape();
  return {detail::placed(dy, 0, shape[-1], shape)};
}

template <FloatElement T>
Tensor<T, Cuda> launch_forward(Cuda, const ConcatHeads&, Saved& saved, const Tensor<T, Cuda>& a,
                               const Tensor<T, Cuda>& b) {
  Tensor<T, Cuda> y(ConcatHeads::output(a.shape(), b.shape()));
  ESP_CUDA(kernels::concat_heads(ptr(y), ptr(a), ptr(b), a.shape(0), a.shape(1), b.shape(1),
                                 a.shape(2), b.shape(2), stream()));
  saved.tensors = {detail::only_shape(a), detail::only_shape(b)};
  return y;
}
template <FloatElement T>
std::array<AnyTensor, 2> launch_backward(Cuda, const ConcatHeads&, const Saved& saved,
                                         const Tensor<T, Cuda>& dy) {
  const Shape &a = saved.tensors[0].shape(), &b = saved.tensors[1].shape();
  std::array<AnyTensor, 2> grads;
  if (saved.needs[0]) grads[0] = detail::placed(dy, 0, a[2], a);
  if (!saved.needs[1]) return grads;
  if (b[1] == a[1]) {
    grads[1] = detail::placed(dy, a[2], b[2], b);
  } else {
    const Tensor<T, Cuda> db(b);
    ESP_CUDA(kernels::sum_heads(ptr(db), ptr(dy), {dy.shape(2), a[2]}, a[0], a[1], b[2], stream()));
    grads[1] = db;
  }
  return grads;
}

}  // namespace espalier::cuda
