// SPDX-License-Identifier: Apache-2.0
// Stands in for cuBLAS where the device layer runs on the CPU: the products that it calls, as
// plain loops, column-major as cuBLAS has it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <type_traits>

struct cublasContext;
using cublasHandle_t = cublasContext*;
enum cublasStatus_t { CUBLAS_STATUS_SUCCESS = 0, CUBLAS_STATUS_INVALID_VALUE = 7 };
enum cublasOperation_t { CUBLAS_OP_N = 0, CUBLAS_OP_T = 1 };
enum cudaDataType { CUDA_R_32F = 0, CUDA_R_64F = 1, CUDA_R_16F = 2, CUDA_R_16BF = 14 };
enum cublasComputeType_t { CUBLAS_COMPUTE_32F = 68, CUBLAS_COMPUTE_64F = 70 };
enum cublasGemmAlgo_t { CUBLAS_GEMM_DEFAULT = -1 };
enum cublasMath_t { CUBLAS_DEFAULT_MATH = 0 };

inline cublasStatus_t cublasCreate(cublasHandle_t* h) {
  return *h = nullptr, CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetStream(cublasHandle_t, cudaStream_t) {
  return CUBLAS_STATUS_SUCCESS;
}
inline cublasStatus_t cublasSetMathMode(cublasHandle_t, cublasMath_t) {
  return CUBLAS_STATUS_SUCCESS;
}
inline const char* cublasGetStatusString(cublasStatus_t) {
  return "status of the simulator";
}

namespace espalier::simulator {
inline double load(const void* p, std::size_t i, cudaDataType type) {
  switch (type) {
    case CUDA_R_32F:
      return static_cast<const float*>(p)[i];
    case CUDA_R_64F:
      return static_cast<const double*>(p)[i];
    case CUDA_R_16BF:
      return __bfloat162float(static_cast<const __nv_bfloat16*>(p)[i]);
    case CUDA_R_16F:
      return __half2float(static_cast<const __half*>(p)[i]);
  }
  return 0;
}
inline void store(void* p, std::size_t i, cudaDataType type, double v) {
  switch (type) {
    case CUDA_R_32F:
      static_cast<float*>(p)[i] = static_cast<float>(v);
      return;
    case CUDA_R_64F:
      static_cast<double*>(p)[i] = v;
      return;
    case CUDA_R_16BF:
      static_cast<__nv_bfloat16*>(p)[i] = __float2bfloat16_rn(static_cast<float>(v));
      return;
    case CUDA_R_16F:
      static_cast<__half*>(p)[i] = __float2half_rn(static_cast<float>(v));
  }
}
}  // namespace espalier::simulator

inline cublasStatus_t cublasGemmEx(cublasHandle_t, cublasOperation_t op_a, cublasOperation_t op_b,
                                   int m, int n, int k, const void* alpha, const void* a,
                                   cudaDataType type_a, int lda, const void* b, cudaDataType type_b,
                                   int ldb, const void* beta, void* c, cudaDataType type_c, int ldc,
                                   cublasComputeType_t compute, cublasGemmAlgo_t) {
  using namespace espalier::simulator;
  const auto leading = [](cublasOperation_t op, int rows, int cols) {
    return op == CUBLAS_OP_N ? rows : cols;
  };
  if (type_a != type_b || lda < leading(op_a, m, k) || ldb < leading(op_b, k, n) || ldc < m ||
      m < 0 || n < 0 || k < 0) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const bool wide = compute == CUBLAS_COMPUTE_64F;
  const double scale_ab =
      wide ? *static_cast<const double*>(alpha) : *static_cast<const float*>(alpha);
  const double scale_c =
      wide ? *static_cast<const double*>(beta) : *static_cast<const float*>(beta);
  const MemoryOpen open;
  const auto at = [](cublasOperation_t op, int row, int col, int ld) {
    return op == CUBLAS_OP_N ? std::size_t(col) * ld + row : std::size_t(row) * ld + col;
  };
  for (int j = 0; j < n; ++j) {
    for (int i = 0; i < m; ++i) {
      double sum = 0;
      for (int l = 0; l < k; ++l) {
        sum += load(a, at(op_a, i, l, lda), type_a) * load(b, at(op_b, l, j, ldb), type_b);
      }
      const std::size_t to = std::size_t(j) * ldc + i;
      store(c, to, type_c, scale_ab * sum + (scale_c == 0 ? 0 : scale_c * load(c, to, type_c)));
    }
  }
  return CUBLAS_STATUS_SUCCESS;
}

inline cublasStatus_t cublasGemmStridedBatchedEx(
    cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b, int m, int n, int k,
    const void* alpha, const void* a, cudaDataType type_a, int lda, long long stride_a,
    const void* b, cudaDataType type_b, int ldb, long long stride_b, const void* beta, void* c,
    cudaDataType type_c, int ldc, long long stride_c, int batch, cublasComputeType_t compute,
    cublasGemmAlgo_t algorithm) {
  const auto at = [](auto* p, long long elements, cudaDataType type) {
    const int bytes = type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2;
    using Byte =
        std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(p)>>, const char, char>;
    return static_cast<Byte*>(p) + elements * bytes;
  };
  for (int i = 0; i < batch; ++i) {
    const cublasStatus_t status =
        cublasGemmEx(handle, op_a, op_b, m, n, k, alpha, at(a, i * stride_a, type_a), type_a, lda,
                     at(b, i * stride_b, type_b), type_b, ldb, beta, at(c, i * stride_c, type_c),
                     type_c, ldc, compute, algorithm);
    if (status != CUBLAS_STATUS_SUCCESS) return status;
  }
  return CUBLAS_STATUS_SUCCESS;
}
