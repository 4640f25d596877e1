// SPDX-License-Identifier: Apache-2.0
// Tiles of 64 x 64, 256 threads with 4 x 4 elements each, k in steps of 16 through shared memory.
#pragma once

#include <espalier/kernels/device.cuh>
#include <espalier/kernels/grouped_gemm_plain.hpp>
#include <espalier/kernels/row_tiles.cuh>

namespace espalier::kernels {

inline constexpr int kGemmTile = 64, kGemmDepth = 16, kGemmThreads = 256, kGemmSide = 4;

/// c += a · b over one tile: element (i, l) of a is load_a(i, l), (l, j) of b is load_b(l, j); out
/// of range they give 0.
template <class LoadA, class LoadB>
__device__ __forceinline__ void multiply_tile(float (&sum)[kGemmSide][kGemmSide],
                                              std::int64_t depth, const LoadA& load_a,
                                              const LoadB& load_b) {
  ESP_SHARED(float[kGemmDepth][kGemmTile + 1], tile_a);
  ESP_SHARED(float[kGemmDepth][kGemmTile + 1], tile_b);
  const int t = threadIdx.x, row = t / 16, col = t % 16;
  for (std::int64_t first = 0; first < depth; first += kGemmDepth) {
    for (int at = t; at < kGemmTile * kGemmDepth; at += kGemmThreads) {
      const int i = at / kGemmDepth, l = at % kGemmDepth;
      tile_a[l][i] = load_a(i, first + l);
      tile_b[l][i] = load_b(first + l, i);
    }
    __syncthreads();
#pragma unroll
    for (int l = 0; l < kGemmDepth; ++l) {
      float a[kGemmSide], b[kGemmSide];
#pragma unroll
      for (int i = 0; i < kGemmSide; ++i) a[i] = tile_a[l][row + 16 * i];
#pragma unroll
      for (int j = 0; j < kGemmSide; ++j) b[j] = tile_b[l][col + 16 * j];
#pragma unroll
      for (int i = 0; i < kGemmSide; ++i) {
#pragma unroll
        for (int j = 0; j < kGemmSide; ++j) sum[i][j] += a[i] * b[j];
      }
    }
    __syncthreads();
  }
}

/// c[i, j] = alpha · sum + beta · c for the elements of this thread that are in range.
template <class C>
__device__ __forceinline__ void write_tile(C* c, std::int64_t stride, std::int64_t rows,
                                           std::int64_t cols,
                                           const float (&sum)[kGemmSide][kGemmSide], float alpha,
                                           float beta) {
  const int row = threadIdx.x / 16, col = threadIdx.x % 16;
#pragma unroll
  for (int i = 0; i < kGemmSide; ++i) {
#pragma unroll
    for (int j = 0; j < kGemmSide; ++j) {
      if (row + 16 * i >= rows || col + 16 * j >= cols) continue;
      C* to = c + (row + 16 * i) * stride + col + 16 * j;
      const float old = beta != 0 ? beta * to_float(*to) : 0.0f;
      *to = from_float<C>(alpha * sum[i][j] + old);
    }
  }
}

template <GemmForm kForm, class C, class A, class B>
__global__ void __launch_bounds__(kGemmThreads)
    grouped_gemm_plain_kernel(C* c, const A* a, const B* const* b, const std::int32_t* offsets,
                              int groups, std::int64_t n, std::int64_t k, float alpha, float beta) {
  const RowTile tile = find_row_tile(offsets, groups, blockIdx.x, kGemmTile);
  if (tile.group < 0) return;
  const std::int64_t rows = tile.end - tile.begin, col = std::int64_t{blockIdx.y} * kGemmTile;
  const B* weight = b[tile.group];
  a += tile.begin * k;
  float sum[kGemmSide][kGemmSide] = {};
  multiply_tile(
      sum, k,
      [&](int i, std::int64_t l) { return i < rows && l < k ? to_float(a[i * k + l]) : 0.0f; },
      [&](std::int64_t l, int j) {
        if (l >= k || col + j >= n) return 0.0f;
        return to_float(kForm == GemmForm::nt ? weight[(col + j) * k + l]
                                              : weight[l * n + col + j]);
      });
  write_tile(c + tile.begin * n + col, n, rows, n - col, sum, alpha, beta);
}

template <class C, class A, class B>
__global__ void __launch_bounds__(kGemmThreads)
    grouped_gemm_plain_tn_kernel(C* const* c, const A* a, const B* b, const std::int32_t* offsets,
                                 std::int64_t m, std::int64_t n, float alpha, float beta) {
  const std::int64_t begin = offsets[blockIdx.z], depth = offsets[blockIdx.z + 1] - begin;
  const std::int64_t row = std::int64_t{blockIdx.x} * kGemmTile;
  const std::int64_t col = std::int64_t{blockIdx.y} * kGemmTile;
  a += begin * m;
  b += begin * n;
  float sum[kGemmSide][kGemmSide] = {};
  multiply_tile(
      sum, depth,
      [&](int i, std::int64_t l) {
        return row + i < m && l < depth ? to_float(a[l * m + row + i]) : 0.0f;
      },
      [&](std::int64_t l, int j) {
        return col + j < n && l < depth ? to_float(b[l * n + col + j]) : 0.0f;
      });
  write_tile(c[blockIdx.z] + row * n + col, n, m - row, n - col, sum, alpha, beta);
}

template <GemmForm kForm, class C, class A, class B>
cudaError_t grouped_gemm_plain_rows(C* c, const A* a, const B* const* b,
                                    const std::int32_t* offsets, int groups, std::int64_t rows,
                                    std::int64_t n, std::int64_t k, float alpha, float beta,
                                    cudaStream_t stream) {
  if (rows == 0 || n == 0 || groups == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(most_row_tiles(rows, groups, kGemmTile)),
                  static_cast<unsigned>(ceil_div<std::int64_t>(n, kGemmTile)));
  return ESP_LAUNCH((grouped_gemm_plain_kernel<kForm, C, A, B>), grid, kGemmThreads, 0, stream, c,
                    a, b, offsets, groups, n, k, alpha, beta);
}

template <class C, class A, class B>
cudaError_t grouped_gemm_plain_tn(C* const* c, const A* a, const B* b, const std::int32_t* offsets,
                                  int groups, std::int64_t m, std::int64_t n, float alpha,
                                  float beta, cudaStream_t stream) {
  if (m == 0 || n == 0 || groups == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(ceil_div<std::int64_t>(m, kGemmTile)),
                  static_cast<unsigned>(ceil_div<std::int64_t>(n, kGemmTile)),
                  static_cast<unsigned>(groups));
  return ESP_LAUNCH((grouped_gemm_plain_tn_kernel<C, A, B>), grid, kGemmThreads, 0, stream, c, a, b,
                    offsets, m, n, alpha, beta);
}

}  // namespace espalier::kernels
