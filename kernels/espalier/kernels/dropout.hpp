// SPDX-License-Identifier: Apache-2.0
// y_i = x_i / (1 - p) where uniform(seed, stream, i) >= p, else 0. The draws are those of the
// framework's Philox4x32-10 on the CPU, bit by bit; backward is the same function on dy.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

constexpr double dropout_bytes(std::int64_t n, int element_bytes) {
  return 2.0 * double(n) * element_bytes;
}

/// 0 <= p < 1; y may be x.
template <class T>
cudaError_t dropout(T* y, const T* x, float p, std::uint64_t seed, std::uint64_t subsequence,
                    std::int64_t n, cudaStream_t stream);

}  // namespace espalier::kernels
