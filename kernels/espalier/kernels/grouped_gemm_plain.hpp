// SPDX-License-Identifier: Apache-2.0
// The plain implementation of grouped_gemm.hpp, with its contract: any type, size and alignment;
// tiles in shared memory, FMA.
#pragma once

#include <espalier/kernels/grouped_gemm.hpp>

namespace espalier::kernels {

/// `rows` is R, the most that offsets[G] can be.
template <GemmForm kForm, class C, class A, class B>
cudaError_t grouped_gemm_plain_rows(C* c, const A* a, const B* const* b,
                                    const std::int32_t* offsets, int groups, std::int64_t rows,
                                    std::int64_t n, std::int64_t k, float alpha, float beta,
                                    cudaStream_t stream);
template <class C, class A, class B>
cudaError_t grouped_gemm_plain_tn(C* const* c, const A* a, const B* b, const std::int32_t* offsets,
                                  int groups, std::int64_t m, std::int64_t n, float alpha,
                                  float beta, cudaStream_t stream);

}  // namespace espalier::kernels
