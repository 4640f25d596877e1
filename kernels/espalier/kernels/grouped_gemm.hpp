// SPDX-License-Identifier: Apache-2.0
// One matrix product per expert over rows in expert order. Sizes are on the device: group g has the
// rows offsets[g] .. offsets[g + 1] - 1, and may have none; rows past offsets[G] are not touched.
//   nt   c[r, N] = alpha · a[r, K] · b_gᵀ + beta · c     b_g [N, K]: forward, weights [out, in]
//   nn   c[r, N] = alpha · a[r, K] · b_g  + beta · c     b_g [K, N]: the gradient of the input
//   tn   c_g [M, N] = alpha · a_gᵀ · b_g + beta · c_g    a [R, M], b [R, N]: gradients of weights
// b (tn: c) is an array of G pointers in device memory; those of groups without rows are not
// followed (tn: their c_g becomes beta · c_g). Sums in f32, rounded once to the type of c; beta 0:
// c is not read. Deterministic: one owner per element, k in order, independent of other rows.
// These functions take the fastest implementation that the types and the alignment of `a` and `c`
// allow: grouped_gemm_plain.hpp for anything, grouped_gemm_mma.hpp for tensor cores, and, if the
// caller gives a workspace, grouped_gemm_wgmma.hpp where the device is an H100 or H200. That one
// has run in the simulator alone, so nothing in this project gives one until its tests have passed
// on a GPU.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

enum class GemmForm { nt, nn, tn };

constexpr double grouped_gemm_flops(std::int64_t rows, std::int64_t n, std::int64_t k) {
  return 2.0 * double(rows) * double(n) * double(k);
}
/// Every operand once; weights of all groups.
constexpr double grouped_gemm_bytes(std::int64_t rows, std::int64_t n, std::int64_t k,
                                    std::int64_t groups, int a_bytes, int b_bytes, int c_bytes) {
  return double(rows) * (double(k) * a_bytes + double(n) * c_bytes) +
         double(groups) * double(n) * double(k) * b_bytes;
}

/// Bytes of a workspace, aligned to 128, which belongs to one call until that has run on its
/// stream.
constexpr std::size_t grouped_gemm_workspace(int groups) {
  return std::size_t{256} * static_cast<std::size_t>(groups);
}

/// In the form nt or nn. `rows` is R, the most that offsets[G] can be. Where n and k are multiples
/// of 8 and a, b 2-byte types, each b_g must be aligned to 16 bytes (what the CUDA allocator
/// returns is).
template <GemmForm kForm, class C, class A, class B>
cudaError_t grouped_gemm_rows(C* c, const A* a, const B* const* b, const std::int32_t* offsets,
                              int groups, std::int64_t rows, std::int64_t n, std::int64_t k,
                              float alpha, float beta, cudaStream_t stream,
                              void* workspace = nullptr);
/// The same for each c_g.
template <class C, class A, class B>
cudaError_t grouped_gemm_tn(C* const* c, const A* a, const B* b, const std::int32_t* offsets,
                            int groups, std::int64_t m, std::int64_t n, float alpha, float beta,
                            cudaStream_t stream, void* workspace = nullptr);

}  // namespace espalier::kernels
