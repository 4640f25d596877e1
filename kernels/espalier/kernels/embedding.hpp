// SPDX-License-Identifier: Apache-2.0
// y[n] = table[ids[n]].        table [V, H] in W   ids [N]   y [N, H] in T
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

constexpr double embedding_bytes(std::int64_t n, std::int64_t h, int element_bytes,
                                 int table_bytes) {
  return double(n) * double(h) * (element_bytes + table_bytes) + 4.0 * double(n);
}

/// An id outside 0..V-1 gives a row of zeros: the caller has checked them.
template <class T, class W>
cudaError_t embedding_forward(T* y, const W* table, const std::int32_t* ids, std::int64_t n,
                              std::int64_t v, std::int64_t h, cudaStream_t stream);

/// dtable [V, H] in f32 is overwritten: rows of one id are added in order, the others are 0.
template <class T>
cudaError_t embedding_backward(float* dtable, const T* dy, const std::int32_t* ids, std::int64_t n,
                               std::int64_t v, std::int64_t h, cudaStream_t stream);

}  // namespace espalier::kernels
