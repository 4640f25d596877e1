// SPDX-License-Identifier: Apache-2.0
// embedding on the device Cuda. The ids are the host's, where they are checked.
#pragma once

#include <vector>

#include <espalier/cuda/rms_norm.hpp>
#include <espalier/kernels/embedding.hpp>
#include <espalier/ops/embedding.hpp>

namespace espalier::cuda {

template <FloatElement T>
Tensor<T, Cuda> launch_forward(Cuda, const Embedding& op, Saved& saved,
                               const std::vector<AnyTensor>& in) {
  const AnyTensor& table = in[0];
  op.check(table.shape());
  const std::int64_t n = op.ids.numel(), v = table.shape(0), h = table.shape(1);
  const Tensor<std::int32_t, Cuda> ids = to<Cuda>(op.ids);
  Tensor<T, Cuda> y(Shape{n, h});
  detail::visit_weight<T>(Embedding::kName, table.dtype(), [&]<class W>() {
    const Tensor<W, Cuda> rows(table);
    ESP_CUDA(kernels::embedding_forward(ptr(y), ptr(rows), ptr(ids), n, v, h, stream()));
  });
  saved.tensors = {AnyTensor(nullptr, table.shape(), table.dtype()), ids};
  return y;
}

template <FloatElement T>
std::vector<AnyTensor> launch_backward(Cuda, const Embedding& op, const Saved& saved,
                                       const Tensor<T, Cuda>& dy) {
  ESP_REQUIRE(saved.tensors[0].dtype() == DType::f32, DTypeError, Embedding::kName,
              ": on cuda only a table in f32 can be trained");
  const Tensor<float, Cuda> d(saved.tensors[0].shape());
  ESP_CUDA(kernels::embedding_backward(ptr(d), ptr(dy), ptr(saved.get<std::int32_t, Cuda>(1)),
                                       op.ids.numel(), d.shape(0), d.shape(1), stream()));
  return {d};
}

}  // namespace espalier::cuda
