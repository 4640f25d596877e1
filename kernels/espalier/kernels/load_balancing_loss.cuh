// SPDX-License-Identifier: Apache-2.0
// Launch-bound work. A block per chunk of rows; warps take rows, lanes experts, and leave the
// probabilities of the row in shared memory, where a thread per expert adds them up in row order.
#pragma once

#include <espalier/kernels/load_balancing_loss.hpp>
#include <espalier/kernels/row_softmax.cuh>

namespace espalier::kernels {

inline constexpr int kBalanceThreads = 256;
inline constexpr int kBalanceExperts = 512;

/// use(e, probability) for every expert of one row, by a warp.
template <class T, class F>
__device__ __forceinline__ void row_softmax(const T* logits, int e, const F& use) {
  const RowSoftmax probability = softmax_of_row<WarpRow>(logits, e);
  for (int c = WarpRow::lane(); c < e; c += kWarp) use(c, probability(to_float(logits[c])));
}

template <class T, class Index>
__global__ void __launch_bounds__(kBalanceThreads)
    load_balancing_chunk_kernel(double* parts, const T* logits, const Index* chosen, std::int64_t n,
                                int e, int k) {
  constexpr int kRows = kBalanceThreads / kWarp, kEach = kBalanceExperts / kBalanceThreads;
  ESP_DYN_SHARED(float, p);                             // [kRows, e]
  double probabilities[kEach] = {}, slots[kEach] = {};  // of this thread's experts
  const std::int64_t chunk = ceil_div<std::int64_t>(n, gridDim.x), begin = blockIdx.x * chunk;
  const std::int64_t end = begin + chunk < n ? begin + chunk : n;
  for (std::int64_t first = begin; first < end; first += kRows) {
    const std::int64_t row = first + threadIdx.x / kWarp;
    __syncthreads();
    if (row < end) {
      float* mine = p + threadIdx.x / kWarp * e;
      row_softmax(logits + row * e, e, [mine](int c, float value) { mine[c] = value; });
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      const int c = threadIdx.x + i * kBalanceThreads;
      for (int r = 0; r < kRows && first + r < end && c < e; ++r) {
        probabilities[i] += double(p[r * e + c]);
        for (int j = 0; j < k; ++j) slots[i] += chosen[(first + r) * k + j] == c ? 1.0 : 0.0;
      }
    }
  }
  double* sums = parts + std::int64_t{blockIdx.x} * 2 * e;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int c = threadIdx.x + i * kBalanceThreads;
    if (c >= e) break;
    sums[c] = probabilities[i];
    sums[e + c] = slots[i];
  }
}

template <class T>
__global__ void __launch_bounds__(kBalanceThreads)
    load_balancing_add_kernel(T* sums, const T* parts, int chunks, int e) {
  for (int c = threadIdx.x; c < 2 * e; c += blockDim.x) {
    T total = sums[c];
    for (int i = 0; i < chunks; ++i) total += parts[std::int64_t{i} * 2 * e + c];
    sums[c] = total;
  }
}

template <class T>
__global__ void __launch_bounds__(kBalanceThreads)
    load_balancing_loss_kernel(T* loss, const double* sums, double rows, int e) {
  double total = 0;
  for (int c = threadIdx.x; c < e; c += blockDim.x) total += sums[c] / rows * (sums[e + c] / rows);
  total = block_sum(total);
  if (threadIdx.x == 0) *loss = static_cast<T>(total * e);
}

template <class T>
__global__ void __launch_bounds__(kBalanceThreads)
    load_balancing_backward_kernel(T* dlogits, const T* logits, const double* sums,
                                   const float* dloss, double rows, std::int64_t n, int e) {
  ESP_SHARED(float[kBalanceExperts], share);  // less their mean, which changes only the rounding
  double mean = 0;
  for (int c = 0; c < e; ++c) mean += sums[e + c] / rows / e;
  for (int c = threadIdx.x; c < e; c += blockDim.x) {
    share[c] = static_cast<float>(sums[e + c] / rows - mean);
  }
  __syncthreads();
  const std::int64_t row = std::int64_t{blockIdx.x} * (blockDim.x / kWarp) + threadIdx.x / kWarp;
  if (row >= n) return;
  const float factor = static_cast<float>(double(*dloss) * e / rows);
  const float* s = share;
  float dot = 0;
  row_softmax(logits + row * e, e, [&dot, s](int c, float p) { dot += p * s[c]; });
  dot = warp_sum(dot);
  T* d = dlogits + row * e;
  row_softmax(logits + row * e, e, [d, s, dot, factor](int c, float p) {
    d[c] = from_float<T>(factor * p * (s[c] - dot));
  });
}

template <class T, class Index>
cudaError_t load_balancing_add(double* sums, const T* logits, const Index* chosen, void* workspace,
                               std::int64_t n, int e, int k, cudaStream_t stream) {
  if (n == 0 || e == 0) return cudaSuccess;
  const auto chunks = static_cast<unsigned>(load_balancing_chunks(n));
  auto* parts = static_cast<double*>(workspace);
  const cudaError_t error =
      ESP_LAUNCH((load_balancing_chunk_kernel<T, Index>), chunks, kBalanceThreads,
                 kBalanceThreads / kWarp * static_cast<std::size_t>(e) * sizeof(float), stream,
                 parts, logits, chosen, n, e, k);
  if (error != cudaSuccess) return error;
  return ESP_LAUNCH(load_balancing_add_kernel<double>, 1, kBalanceThreads, 0, stream, sums, parts,
                    static_cast<int>(chunks), e);
}

template <class T>
cudaError_t load_balancing_loss(T* loss, const double* sums, std::int64_t rows, int e,
                                cudaStream_t stream) {
  return ESP_LAUNCH(load_balancing_loss_kernel<T>, 1, kBalanceThreads, 0, stream, loss, sums,
                    double(rows), e);
}

template <class T>
cudaError_t load_balancing_backward(T* dlogits, const T* logits, const double* sums,
                                    const float* dloss, std::int64_t rows, std::int64_t n, int e,
                                    cudaStream_t stream) {
  if (n == 0 || e == 0) return cudaSuccess;
  if (e > kBalanceExperts) return cudaErrorInvalidValue;
  return ESP_LAUNCH(load_balancing_backward_kernel<T>,
                    static_cast<unsigned>(ceil_div<std::int64_t>(n, kBalanceThreads / kWarp)),
                    kBalanceThreads, 0, stream, dlogits, logits, sums, dloss, double(rows), n, e);
}

}  // namespace espalier::kernels
