// SPDX-License-Identifier: Apache-2.0
// C [m, n] = alpha · A [m, k] B [k, n] + beta · C by cuBLAS, row-major, sums in f32. Operands of
// two types are multiplied in the wider one: the narrower is converted into a workspace first.
#pragma once

#include <cublas_v2.h>

#include <algorithm>
#include <climits>
#include <initializer_list>

#include <espalier/cuda/device.hpp>
#include <espalier/kernels/elementwise.hpp>

namespace espalier::cuda {

/// A matrix in device memory, row-major with `stride` elements between rows.
/// `transposed`: the memory holds the transpose.
struct Matrix {
  const void* data;
  DType dtype;
  std::int64_t stride;
  bool transposed = false;
};

inline void check(cublasStatus_t status, const char* call) {
  ESP_REQUIRE(status == CUBLAS_STATUS_SUCCESS, CudaError, call, ": ",
              cublasGetStatusString(status));
}

namespace detail {

inline cublasHandle_t cublas() {
  static const cublasHandle_t handle = [] {
    cublasHandle_t h;
    check(cublasCreate(&h), "cublasCreate");
    check(cublasSetStream(h, stream()), "cublasSetStream");
    return h;
  }();
  return handle;
}

inline cudaDataType cublas_type(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return CUDA_R_32F;
    case DType::bf16:
      return CUDA_R_16BF;
    case DType::f16:
      return CUDA_R_16F;
    default:
      throw DTypeError(espalier::detail::concat(
          {"gemm on cuda: unsupported dtype ", name(dtype), "; built for f32 bf16 f16"}));
  }
}

/// `rows` x `width` elements of `from`, converted to f32 without gaps.
inline Tensor<float, Cuda> widened(const Matrix& from, std::int64_t rows, std::int64_t width) {
  const Tensor<float, Cuda> to(Shape{rows, width});
  visit_dtype<bf16, f16>("gemm on cuda", from.dtype, [&]<class T>() {
    const auto* p = static_cast<const kernel_t<T>*>(from.data);
    if (from.stride == width) {
      ESP_CUDA(kernels::cast(ptr(to), p, rows * width, stream()));
      return;
    }
    for (std::int64_t i = 0; i < rows; ++i) {
      ESP_CUDA(kernels::cast(ptr(to) + i * width, p + i * from.stride, width, stream()));
    }
  });
  return to;
}

}  // namespace detail

namespace detail {

inline void require_counts(std::initializer_list<std::int64_t> counts) {
  ESP_REQUIRE(std::max(counts) <= INT_MAX, ShapeError, "gemm on cuda: a size is ", std::max(counts),
              "; cuBLAS counts to ", INT_MAX);
}
inline cublasOperation_t operation(const Matrix& x) {
  return x.transposed ? CUBLAS_OP_T : CUBLAS_OP_N;
}

}  // namespace detail

/// With `b.transposed`, b is a weight [n, k] and C = A bᵀ. beta 0: C is not read.
template <Element T>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, Matrix a, Matrix b, T* c,
          std::int64_t stride_c, float alpha = 1, float beta = 0) {
  detail::require_counts({m, n, k, a.stride, b.stride, stride_c});
  if (m == 0 || n == 0) return;
  Tensor<float, Cuda> wide;
  if (a.dtype != b.dtype) {
    Matrix& narrow = a.dtype == DType::f32 ? b : a;
    const std::int64_t rows = &narrow == &a ? m : k, cols = &narrow == &a ? k : n;
    const std::int64_t height = narrow.transposed ? cols : rows;
    const std::int64_t width = narrow.transposed ? rows : cols;
    wide = detail::widened(narrow, height, width);
    narrow = {wide.bytes(), DType::f32, width, narrow.transposed};
  }
  // Row-major C is column-major Cᵀ = Bᵀ Aᵀ.
  check(cublasGemmEx(detail::cublas(), detail::operation(b), detail::operation(a), int(n), int(m),
                     int(k), &alpha, b.data, detail::cublas_type(b.dtype), int(b.stride), a.data,
                     detail::cublas_type(a.dtype), int(a.stride), &beta, c,
                     detail::cublas_type(dtype_of<T>::value), int(stride_c), CUBLAS_COMPUTE_32F,
                     CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
}

/// `batch` products of matrices of one type that lie one after another in a, b and c.
template <Element T>
void gemm_batch(std::int64_t batch, std::int64_t m, std::int64_t n, std::int64_t k, const Matrix& a,
                const Matrix& b, T* c, float beta) {
  if (batch == 1) return gemm(m, n, k, a, b, c, n, 1, beta);
  detail::require_counts({batch, m, n, k});
  if (batch == 0 || m == 0 || n == 0) return;
  const float alpha = 1;
  check(cublasGemmStridedBatchedEx(detail::cublas(), detail::operation(b), detail::operation(a),
                                   int(n), int(m), int(k), &alpha, b.data,
                                   detail::cublas_type(b.dtype), int(b.stride), k * n, a.data,
                                   detail::cublas_type(a.dtype), int(a.stride), m * k, &beta, c,
                                   detail::cublas_type(dtype_of<T>::value), int(n), m * n,
                                   int(batch), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT),
        "cublasGemmStridedBatchedEx");
}

}  // namespace espalier::cuda
