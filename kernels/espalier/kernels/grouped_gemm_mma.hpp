// SPDX-License-Identifier: Apache-2.0
// Implementation of grouped_gemm.hpp with tensor cores of sm_80 and later, for bf16 and f16
// operands and results in their type or f32. The same contract, but n and k (tn: m and n) are
// multiples of 8 and all pointers, also those in device memory, are aligned to 16 bytes: rows are
// copied 16 bytes at a time. What the host can see of that is checked (cudaErrorInvalidValue); a
// misaligned pointer in device memory ends the kernel with cudaErrorMisalignedAddress.
#pragma once

#include <espalier/kernels/grouped_gemm.hpp>

namespace espalier::kernels {

template <GemmForm kForm, class C, class T>
cudaError_t grouped_gemm_mma_rows(C* c, const T* a, const T* const* b, const std::int32_t* offsets,
                                  int groups, std::int64_t rows, std::int64_t n, std::int64_t k,
                                  float alpha, float beta, cudaStream_t stream);
template <class C, class T>
cudaError_t grouped_gemm_mma_tn(C* const* c, const T* a, const T* b, const std::int32_t* offsets,
                                int groups, std::int64_t m, std::int64_t n, float alpha, float beta,
                                cudaStream_t stream);

}  // namespace espalier::kernels
