// SPDX-License-Identifier: Apache-2.0
// matmul and matmul_add on the device Cuda, by cuBLAS: one call for all products of a batch.
#pragma once

#include <vector>

#include <espalier/cuda/gemm.hpp>
#include <espalier/ops/matmul.hpp>

namespace espalier {

template <CudaFloat T>
struct Launch<Matmul, T, Cuda> {
  static Tensor<T, Cuda> forward(const Matmul& op, Saved& saved, const AnyTensors& in) {
    return op.forward_by<T, Cuda>(multiply, saved, in);
  }
  static AnyTensors backward(const Matmul& op, const Saved& saved, const Tensor<T, Cuda>& dy) {
    return op.backward_by(multiply, saved, dy);
  }

 private:
  static void multiply(const Matmul::Factor& a, const Matmul::Factor& b, const Tensor<T, Cuda>& c,
                       int beta) {
    const std::int64_t m = c.shape(-2), n = c.shape(-1), k = a.value.shape(a.transposed ? -2 : -1);
    if (k == 0 && beta == 0) cuda::fill_zero(c.bytes(), c.size_bytes());
    if (k == 0 || c.numel() == 0) return;
    cuda::gemm_batch(c.numel() / (m * n), m, n, k, matrix(a), matrix(b), c.data(),
                     static_cast<float>(beta));
  }
  static cuda::Matrix matrix(const Matmul::Factor& f) {
    return {f.value.bytes(), f.value.dtype(), f.value.shape(-1), f.transposed};
  }
};

}  // namespace espalier
