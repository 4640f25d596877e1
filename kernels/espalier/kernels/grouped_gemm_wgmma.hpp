// SPDX-License-Identifier: Apache-2.0
// Implementation of grouped_gemm.hpp with wgmma and TMA of sm_90a (H100, H200), for the types,
// sizes and alignments of grouped_gemm_mma.hpp. Returns cudaErrorNotSupported, with nothing
// launched, on other devices and in builds without code for sm_90a.
//
// `workspace`, grouped_gemm_workspace(groups) bytes in device memory, holds two tensor maps per
// group. A first, tiny kernel writes them, because only the device knows where the rows of a group
// begin and where its weights lie.
#pragma once

#include <espalier/kernels/grouped_gemm.hpp>

namespace espalier::kernels {

template <GemmForm kForm, class C, class T>
cudaError_t grouped_gemm_wgmma_rows(C* c, const T* a, const T* const* b,
                                    const std::int32_t* offsets, int groups, std::int64_t rows,
                                    std::int64_t n, std::int64_t k, float alpha, float beta,
                                    cudaStream_t stream, void* workspace);
template <class C, class T>
cudaError_t grouped_gemm_wgmma_tn(C* const* c, const T* a, const T* b, const std::int32_t* offsets,
                                  int groups, std::int64_t m, std::int64_t n, float alpha,
                                  float beta, cudaStream_t stream, void* workspace);

}  // namespace espalier::kernels
