// SPDX-License-Identifier: Apache-2.0
// Forward: a block per row. Backward: a block per row of the table looks through the ids, a block's
// width of them at a time; every thread owns columns, and meets the matching rows in order.
#pragma once

#include <espalier/kernels/device.cuh>
#include <espalier/kernels/embedding.hpp>

namespace espalier::kernels {

inline constexpr int kEmbeddingThreads = 128;

template <class T, class W>
__global__ void __launch_bounds__(kEmbeddingThreads)
    embedding_forward_kernel(T* y, const W* table, const std::int32_t* ids, std::int64_t v,
                             std::int64_t h) {
  const std::int64_t row = blockIdx.x, id = ids[row];
  const bool known = id >= 0 && id < v;
  for (std::int64_t c = threadIdx.x; c < h; c += blockDim.x) {
    y[row * h + c] = from_float<T>(known ? to_float(table[id * h + c]) : 0.0f);
  }
}

template <class T>
__global__ void __launch_bounds__(kEmbeddingThreads)
    embedding_backward_kernel(float* dtable, const T* dy, const std::int32_t* ids, std::int64_t n,
                              std::int64_t h) {
  ESP_SHARED(std::int32_t[kEmbeddingThreads], here);
  const std::int32_t id = static_cast<std::int32_t>(blockIdx.x);
  for (std::int64_t first = 0; first < h; first += kEmbeddingThreads) {
    const std::int64_t c = first + threadIdx.x;
    float sum = 0;
    for (std::int64_t at = 0; at < n; at += kEmbeddingThreads) {
      const std::int64_t row = at + threadIdx.x;
      __syncthreads();
      here[threadIdx.x] = row < n ? ids[row] : -1;
      __syncthreads();
      for (int i = 0; i < kEmbeddingThreads; ++i) {
        if (here[i] == id && c < h) sum += to_float(dy[(at + i) * h + c]);
      }
    }
    if (c < h) dtable[id * h + c] = sum;
  }
}

template <class T, class W>
cudaError_t embedding_forward(T* y, const W* table, const std::int32_t* ids, std::int64_t n,
                              std::int64_t v, std::int64_t h, cudaStream_t stream) {
  if (n == 0 || h == 0) return cudaSuccess;
  return ESP_LAUNCH((embedding_forward_kernel<T, W>), static_cast<unsigned>(n), kEmbeddingThreads,
                    0, stream, y, table, ids, v, h);
}

template <class T>
cudaError_t embedding_backward(float* dtable, const T* dy, const std::int32_t* ids, std::int64_t n,
                               std::int64_t v, std::int64_t h, cudaStream_t stream) {
  if (v == 0 || h == 0) return cudaSuccess;
  return ESP_LAUNCH(embedding_backward_kernel<T>, static_cast<unsigned>(v), kEmbeddingThreads, 0,
                    stream, dtable, dy, ids, n, h);
}

}  // namespace espalier::kernels
