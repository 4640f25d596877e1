// SPDX-License-Identifier: Apache-2.0
// Chooses the implementation of a product: plain, mma or wgmma.
#pragma once

#include <espalier/kernels/grouped_gemm.hpp>
#include <espalier/kernels/grouped_gemm_mma.cuh>
#include <espalier/kernels/grouped_gemm_plain.cuh>
#include <espalier/kernels/grouped_gemm_wgmma.cuh>

namespace espalier::kernels {

template <GemmForm kForm, class C, class A, class B>
cudaError_t grouped_gemm_rows(C* c, const A* a, const B* const* b, const std::int32_t* offsets,
                              int groups, std::int64_t rows, std::int64_t n, std::int64_t k,
                              float alpha, float beta, cudaStream_t stream,
                              [[maybe_unused]] void* workspace) {
  if constexpr (kMmaMultiplies<C, A, B>) {
    if (grouped_gemm_mma_fits(n, k, c, a)) {
      if (workspace != nullptr) {
        const cudaError_t error = grouped_gemm_wgmma_rows<kForm>(c, a, b, offsets, groups, rows, n,
                                                                 k, alpha, beta, stream, workspace);
        if (error != cudaErrorNotSupported) return error;
      }
      return grouped_gemm_mma_rows<kForm>(c, a, b, offsets, groups, rows, n, k, alpha, beta,
                                          stream);
    }
  }
  return grouped_gemm_plain_rows<kForm>(c, a, b, offsets, groups, rows, n, k, alpha, beta, stream);
}

template <class C, class A, class B>
cudaError_t grouped_gemm_tn(C* const* c, const A* a, const B* b, const std::int32_t* offsets,
                            int groups, std::int64_t m, std::int64_t n, float alpha, float beta,
                            cudaStream_t stream, [[maybe_unused]] void* workspace) {
  if constexpr (kMmaMultiplies<C, A, B>) {
    if (grouped_gemm_mma_fits(m, n, a, b)) {
      if (workspace != nullptr) {
        const cudaError_t error =
            grouped_gemm_wgmma_tn(c, a, b, offsets, groups, m, n, alpha, beta, stream, workspace);
        if (error != cudaErrorNotSupported) return error;
      }
      return grouped_gemm_mma_tn(c, a, b, offsets, groups, m, n, alpha, beta, stream);
    }
  }
  return grouped_gemm_plain_tn(c, a, b, offsets, groups, m, n, alpha, beta, stream);
}

}  // namespace espalier::kernels
