// SPDX-License-Identifier: Apache-2.0
// The plain implementation of lora.hpp, for any type, size and alignment: 256 threads, steps of 32
// rows by 64 columns through shared memory as f32, 16 ranks to a block (more ranks read the matrix
// again).
#pragma once

#include <espalier/kernels/grouped_gemm_plain.cuh>
#include <espalier/kernels/lora_pass.cuh>

namespace espalier::kernels {

inline constexpr int kLoraPlainThreads = 256, kLoraPlainRows = 32, kLoraPlainColumns = 64;
inline constexpr int kLoraPlainRanks = 16, kLoraPlainSide = kLoraPlainThreads / kLoraPlainRanks;
inline constexpr int kLoraPlainSteps = kLoraColumns / kLoraPlainColumns;

/// What a factor's element counts in products.
template <class T>
__device__ __forceinline__ float rounded_factor(float v) {
  return to_float(from_float<T>(v));
}

struct LoraPlainShared {
  float matrix[kLoraPlainRows][kLoraPlainColumns + 1];
  float small[kLoraPlainRows][kLoraPlainRanks + 1];
  float factor[kLoraColumns][kLoraPlainRanks + 1];
};

/// The part of the problem that a block has: its first row, column and rank, and how many there
/// are.
template <class T>
struct LoraPlainBlock {
  const LoraPassArguments<T>& p;
  LoraPlainShared& shared;
  std::int64_t row, rows, column, columns, rank, ranks;

  template <bool kRankInner>
  __device__ __forceinline__ void load_factor(const float* factor) const {
    for (int at = threadIdx.x; at < kLoraColumns * kLoraPlainRanks; at += kLoraPlainThreads) {
      const int c = kRankInner ? at / kLoraPlainRanks : at % kLoraColumns;
      const int j = kRankInner ? at % kLoraPlainRanks : at / kLoraColumns;
      const bool exists = c < columns && j < ranks;
      shared.factor[c][j] =
          exists ? rounded_factor<T>(
                       factor[lora_at<kRankInner>(column + c, rank + j, p.width, p.rank)])
                 : 0.0f;
    }
  }
  __device__ __forceinline__ void load_small(std::int64_t first) const {
    for (int at = threadIdx.x; at < kLoraPlainRows * kLoraPlainRanks; at += kLoraPlainThreads) {
      const int r = at / kLoraPlainRanks, j = at % kLoraPlainRanks;
      const bool exists = first + r < rows && j < ranks;
      shared.small[r][j] = exists ? to_float(p.small[(row + first + r) * p.rank + rank + j]) : 0.0f;
    }
  }
  __device__ __forceinline__ void load_matrix(std::int64_t first, int from) const {
    for (int at = threadIdx.x; at < kLoraPlainRows * kLoraPlainColumns; at += kLoraPlainThreads) {
      const int r = at / kLoraPlainColumns, c = at % kLoraPlainColumns;
      const bool exists = first + r < rows && from + c < columns;
      shared.matrix[r][c] =
          exists ? to_float(p.matrix[(row + first + r) * p.width + column + from + c]) : 0.0f;
    }
  }
};

template <class T, LoraPass kPass>
__global__ void __launch_bounds__(kLoraPlainThreads, 2) lora_plain_kernel(LoraPassArguments<T> p) {
  constexpr int kRowsEach = kLoraPlainRows / kLoraPlainSide;
  constexpr int kColumnsEach = kLoraPlainColumns / kLoraPlainSide;
  ESP_SHARED(LoraPlainShared, shared);
  const RowTile tile = find_row_tile(p.offsets, p.groups, blockIdx.x, p.chunk);
  if (tile.group < 0) return;
  const std::int64_t column = std::int64_t{blockIdx.y} * kLoraColumns;
  const std::int64_t rank = std::int64_t{blockIdx.z} * kLoraPlainRanks;
  const LoraPlainBlock<T> block{p,      shared,           tile.begin, tile.end - tile.begin,
                                column, p.width - column, rank,       p.rank - rank};
  const int side = threadIdx.x / kLoraPlainRanks, j = threadIdx.x % kLoraPlainRanks;
  if (kLoraSumsColumns<kPass>) {
    block.template load_factor<kLoraRankInner<kPass>>(p.factor[tile.group]);
  }
  float of_column[kLoraPlainSteps][kColumnsEach] = {};
  for (std::int64_t first = 0; first < block.rows; first += kLoraPlainRows) {
    float of_row[kRowsEach] = {};
    if (kLoraSumsRows<kPass>) block.load_small(first);
#pragma unroll
    for (int step = 0; step < kLoraPlainSteps; ++step) {
      const int from = step * kLoraPlainColumns;
      if (from >= block.columns) break;
      block.load_matrix(first, from);
      __syncthreads();
      if (kLoraSumsColumns<kPass>) {
#pragma unroll 4
        for (int c = 0; c < kLoraPlainColumns; ++c) {
#pragma unroll
          for (int i = 0; i < kRowsEach; ++i) {
            of_row[i] += shared.matrix[side + kLoraPlainSide * i][c] * shared.factor[from + c][j];
          }
        }
      }
      if (kLoraSumsRows<kPass>) {
#pragma unroll 4
        for (int r = 0; r < kLoraPlainRows; ++r) {
#pragma unroll
          for (int i = 0; i < kColumnsEach; ++i) {
            of_column[step][i] += shared.matrix[r][side + kLoraPlainSide * i] * shared.small[r][j];
          }
        }
      }
      __syncthreads();
    }
    if constexpr (kLoraSumsColumns<kPass>) {
#pragma unroll
      for (int i = 0; i < kRowsEach; ++i) {
        const std::int64_t r = first + side + kLoraPlainSide * i;
        if (r >= block.rows || j >= block.ranks) continue;
        p.tile_sums[(blockIdx.y * p.rows + tile.begin + r) * p.rank + rank + j] = of_row[i];
      }
    }
  }
  if constexpr (kLoraSumsRows<kPass>) {
    const LoraGradient gradient = lora_gradient(p, tile);
#pragma unroll
    for (int step = 0; step < kLoraPlainSteps; ++step) {
#pragma unroll
      for (int i = 0; i < kColumnsEach; ++i) {
        const std::int64_t c = column + step * kLoraPlainColumns + side + kLoraPlainSide * i;
        if (c >= p.width || j >= block.ranks) continue;
        gradient.to[lora_at<kLoraRankInner<kPass>>(c, rank + j, p.width, p.rank)] =
            gradient.scale * of_column[step][i];
      }
    }
  }
}

template <LoraPass kPass, class T>
cudaError_t lora_plain_pass(const LoraPassArguments<T>& p, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(most_row_tiles(p.rows, p.groups, p.chunk)),
                  static_cast<unsigned>(p.tiles()),
                  static_cast<unsigned>(ceil_div(p.rank, kLoraPlainRanks)));
  return ESP_LAUNCH((lora_plain_kernel<T, kPass>), grid, kLoraPlainThreads, 0, stream, p);
}

template <class T, bool kRankInner>
__global__ void __launch_bounds__(kGemmThreads) lora_plain_up_kernel(LoraUpArguments<T> p) {
  const RowTile tile = find_row_tile(p.offsets, p.groups, blockIdx.x, kGemmTile);
  if (tile.group < 0) return;
  const std::int64_t rows = tile.end - tile.begin, column = std::int64_t{blockIdx.y} * kGemmTile;
  const T* small = p.small + tile.begin * p.rank;
  const float* factor = p.factor[tile.group];
  float sum[kGemmSide][kGemmSide] = {};
  multiply_tile(
      sum, p.rank,
      [&](int i, std::int64_t l) {
        return i < rows && l < p.rank ? to_float(small[i * p.rank + l]) : 0.0f;
      },
      [&](std::int64_t l, int j) {
        if (l >= p.rank || column + j >= p.width) return 0.0f;
        return rounded_factor<T>(factor[lora_at<kRankInner>(column + j, l, p.width, p.rank)]);
      });
  write_tile(p.y + tile.begin * p.width + column, p.width, rows, p.width - column, sum, p.scale,
             p.add ? 1.0f : 0.0f);
}

template <bool kRankInner, class T>
cudaError_t lora_plain_up(const LoraUpArguments<T>& p, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(most_row_tiles(p.rows, p.groups, kGemmTile)),
                  static_cast<unsigned>(ceil_div<std::int64_t>(p.width, kGemmTile)));
  return ESP_LAUNCH((lora_plain_up_kernel<T, kRankInner>), grid, kGemmThreads, 0, stream, p);
}

}  // namespace espalier::kernels
