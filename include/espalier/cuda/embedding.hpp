// SPDX-License-Identifier: Apache-2.0
// embedding on the device Cuda. The ids are the host's, where they are checked.
#pragma once

#include <vector>

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/embedding.hpp>
#include <espalier/ops/embedding.hpp>

namespace espalier {

template <CudaFloat T>
struct Launch<Embedding, T, Cuda> {
  static Tensor<T, Cuda> forward(const Embedding& op, Saved& saved, const AnyTensors& in) {
    const AnyTensor& table = in[0];
    op.check(table.shape());
    const std::int64_t n = op.ids.numel(), v = table.shape(0), h = table.shape(1);
    const Tensor<std::int32_t, Cuda> ids = to<Cuda>(op.ids);
    Tensor<T, Cuda> y(Shape{n, h});
    cuda::detail::visit_weight<T>(Embedding::kName, table.dtype(), [&]<class W>() {
      const Tensor<W, Cuda> rows(table);
      ESP_CUDA(kernels::embedding_forward(ptr(y), ptr(rows), ptr(ids), n, v, h, cuda::stream()));
    });
    saved.tensors = {only_shape(table), ids};
    return y;
  }
  static AnyTensors backward(const Embedding& op, const Saved& saved, const Tensor<T, Cuda>& dy) {
    ESP_REQUIRE(saved.tensors[0].dtype() == DType::f32, DTypeError, Embedding::kName,
                ": on cuda only a table in f32 can be trained");
    const Tensor<float, Cuda> d(saved.tensors[0].shape());
    ESP_CUDA(kernels::embedding_backward(ptr(d), ptr(dy), ptr(saved.get<std::int32_t, Cuda>(1)),
                                         op.ids.numel(), d.shape(0), d.shape(1), cuda::stream()));
    return {d};
  }
};

}  // namespace espalier
