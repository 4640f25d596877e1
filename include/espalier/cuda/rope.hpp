// SPDX-License-Identifier: Apache-2.0
// rope on the device Cuda. The table of cosines and sines is made on the host, once for all layers
// of a config, as on the CPU.
#pragma once

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/rope.hpp>
#include <espalier/ops/rope.hpp>

namespace espalier {

template <CudaFloat T>
struct Launch<Rope, T, Cuda> {
  static Tensor<T, Cuda> forward(const Rope& op, Saved& saved, const Tensor<T, Cuda>& x) {
    op.check(x.shape());
    const auto on_host =
        detail::RopeTables<float>::instance().get(op.positions, op.config, op.dims(x.shape()));
    const Tensor<float, Cuda> table = to<Cuda>(on_host);
    saved.tensors = {table};
    return rotated(op, x, table, 1.0f);
  }
  static std::array<AnyTensor, 1> backward(const Rope& op, const Saved& saved,
                                           const Tensor<T, Cuda>& dy) {
    return {rotated(op, dy, saved.get<float, Cuda>(0), -1.0f)};
  }

 private:
  static Tensor<T, Cuda> rotated(const Rope& op, const Tensor<T, Cuda>& x,
                                 const Tensor<float, Cuda>& table, float direction) {
    Tensor<T, Cuda> y(x.shape());
    ESP_CUDA(
        kernels::rope(ptr(y), ptr(x), ptr(table),
                      {x.shape(0), x.shape(1), x.shape(2), table.shape(1), op.config.interleaved},
                      direction, cuda::stream()));
    return y;
  }
};

}  // namespace espalier
