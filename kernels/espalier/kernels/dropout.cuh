// SPDX-License-Identifier: Apache-2.0
// A thread per block of Philox: four words for four elements.
#pragma once

#include <espalier/kernels/device.cuh>
#include <espalier/kernels/dropout.hpp>

namespace espalier::kernels {

inline constexpr int kDropoutThreads = 256;

/// Philox4x32-10 (Salmon et al. 2011) for counter (index, subsequence) and key `seed`.
__device__ __forceinline__ void philox(std::uint32_t (&c)[4], std::uint64_t seed,
                                       std::uint64_t subsequence, std::uint64_t index) {
  c[0] = static_cast<std::uint32_t>(index);
  c[1] = static_cast<std::uint32_t>(index >> 32);
  c[2] = static_cast<std::uint32_t>(subsequence);
  c[3] = static_cast<std::uint32_t>(subsequence >> 32);
  auto k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c[2];
    const std::uint32_t c0 = static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ k0;
    const std::uint32_t c2 = static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ k1;
    c[1] = static_cast<std::uint32_t>(p1);
    c[3] = static_cast<std::uint32_t>(p0);
    c[0] = c0;
    c[2] = c2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

template <class T>
__global__ void __launch_bounds__(kDropoutThreads)
    dropout_kernel(T* y, const T* x, std::uint32_t threshold, float scale, std::uint64_t seed,
                   std::uint64_t subsequence, std::int64_t n) {
  const std::int64_t block = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (4 * block >= n) return;
  std::uint32_t words[4];
  philox(words, seed, subsequence, static_cast<std::uint64_t>(block));
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::int64_t at = 4 * block + i;
    if (at < n) y[at] = from_float<T>(words[i] >> 8 >= threshold ? to_float(x[at]) * scale : 0.0f);
  }
}

template <class T>
cudaError_t dropout(T* y, const T* x, float p, std::uint64_t seed, std::uint64_t subsequence,
                    std::int64_t n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  // uniform = (bits >> 8) * 2^-24, so comparing the integer is the same test.
  const auto threshold = static_cast<std::uint32_t>(ceilf(p * 16777216.0f));
  const auto scale = static_cast<float>(1 / (1 - static_cast<double>(p)));
  return ESP_LAUNCH(dropout_kernel<T>,
                    static_cast<unsigned>(ceil_div<std::int64_t>(n, 4 * kDropoutThreads)),
                    kDropoutThreads, 0, stream, y, x, threshold, scale, seed, subsequence, n);
}

}  // namespace espalier::kernels
