// SPDX-License-Identifier: Apache-2.0
// Shared by the implementations of lora.hpp: a pass reads a matrix [R, width] once, in tiles of 512
// columns by chunks of rows of one group, and leaves sums over each tile's columns (per row) and
// over each chunk's rows (per column); a second launch adds these up in order.
#pragma once

#include <espalier/kernels/lora.hpp>
#include <espalier/kernels/row_tiles.cuh>

namespace espalier::kernels {

enum class LoraPass { down, backward_up, backward_down };

/// [R, r] = matrix · factor.
template <LoraPass kPass>
inline constexpr bool kLoraSumsColumns = kPass != LoraPass::backward_down;
/// Factor's gradient = matrixᵀ · [R, r].
template <LoraPass kPass>
inline constexpr bool kLoraSumsRows = kPass != LoraPass::down;
/// Factors and gradients are [width, r] (b) and not [r, width] (a).
template <LoraPass kPass>
inline constexpr bool kLoraRankInner = kPass == LoraPass::backward_up;

/// The rows in expert order, and the sizes of the matrices over them.
struct LoraSizes {
  const std::int32_t* offsets;
  int groups;
  std::int64_t rows, width;
  int rank;
  int chunk = lora_chunk_rows(width);  // rows of a group that one block has
};

/// What a pass does not use is null.
template <class T>
struct LoraPassArguments : LoraSizes {
  const T* matrix = nullptr;             // [R, width]
  const T* small = nullptr;              // [R, r]
  const float* const* factor = nullptr;  // per group
  T* out = nullptr;                      // [R, r]
  float* const* gradient = nullptr;      // per group
  float* tile_sums = nullptr;            // [tiles of columns, R, r]
  float* chunk_sums = nullptr;           // [chunks, width · r]
  float scale = 1.0f;

  __host__ __device__ std::int64_t tiles() const {
    return ceil_div<std::int64_t>(width, kLoraColumns);
  }
  /// Where the first chunk of a group that begins at this row leaves its sums.
  __device__ float* first_chunk_sums(std::int64_t begin) const {
    return chunk_sums + 2 * (begin / chunk) * width * rank;
  }
};

/// y [R, width] (+)= scale · small · factor.
template <class T>
struct LoraUpArguments : LoraSizes {
  T* y;
  const T* small;
  const float* const* factor;
  float scale;
  bool add;
};

/// Where a block puts the sums over its rows: to the gradient where it has all rows of the group.
struct LoraGradient {
  float* to;
  float scale;
};
template <class T>
__device__ __forceinline__ LoraGradient lora_gradient(const LoraPassArguments<T>& p,
                                                      const RowTile& tile) {
  const std::int64_t begin = p.offsets[tile.group], end = p.offsets[tile.group + 1];
  if (end - begin <= p.chunk) return {p.gradient[tile.group], p.scale};
  const std::int64_t chunk = (tile.begin - begin) / p.chunk;
  return {p.first_chunk_sums(begin) + chunk * p.width * p.rank, 1.0f};
}

/// Element (column, j) of a factor or its gradient.
template <bool kRankInner>
__device__ __forceinline__ std::int64_t lora_at(std::int64_t column, std::int64_t j,
                                                std::int64_t width, int rank) {
  return kRankInner ? column * rank + j : j * width + column;
}

inline constexpr int kLoraSumThreads = 256;
inline constexpr std::int64_t kLoraSumsPerBlock = 4096;  // elements of a gradient

template <class T>
__device__ __forceinline__ void sum_lora_tiles(const LoraPassArguments<T>& p, std::int64_t at) {
  if (at >= std::int64_t{p.offsets[p.groups]} * p.rank) return;
  const std::int64_t tiles = p.tiles(), stride = p.rows * p.rank;
  float sum = 0;
#pragma unroll 8
  for (std::int64_t t = 0; t < tiles; ++t) sum += p.tile_sums[t * stride + at];
  p.out[at] = from_float<T>(p.scale * sum);
}

template <class T>
__device__ __forceinline__ void sum_lora_chunks(const LoraPassArguments<T>& p, std::int64_t block,
                                                int group) {
  const std::int64_t begin = p.offsets[group], rows = p.offsets[group + 1] - begin;
  const std::int64_t chunks = ceil_div<std::int64_t>(rows, p.chunk), size = p.width * p.rank;
  if (chunks == 1) return;  // the pass has written it
  const float* sums = p.first_chunk_sums(begin);
  const std::int64_t first = block * kLoraSumsPerBlock, last = first + kLoraSumsPerBlock;
  for (std::int64_t at = first + threadIdx.x; at < last && at < size; at += kLoraSumThreads) {
    float sum = 0;
#pragma unroll 4
    for (std::int64_t c = 0; c < chunks; ++c) sum += sums[c * size + at];
    p.gradient[group][at] = p.scale * sum;
  }
}

/// Blocks below `row_blocks`: a thread per element of [R, r]. The others: 4096 elements of a
/// group's gradient each.
template <class T>
__global__ void __launch_bounds__(kLoraSumThreads)
    lora_sum_kernel(LoraPassArguments<T> p, unsigned row_blocks) {
  const std::int64_t block = blockIdx.x;
  if (block < row_blocks) {
    sum_lora_tiles(p, block * kLoraSumThreads + threadIdx.x);
  } else {
    const std::int64_t blocks = ceil_div<std::int64_t>(p.width * p.rank, kLoraSumsPerBlock);
    const std::int64_t of_columns = block - row_blocks;
    sum_lora_chunks(p, of_columns % blocks, static_cast<int>(of_columns / blocks));
  }
}

template <LoraPass kPass, class T>
cudaError_t lora_sum(const LoraPassArguments<T>& p, cudaStream_t stream) {
  std::int64_t row_blocks = 0, column_blocks = 0;
  if (kLoraSumsColumns<kPass>) {
    row_blocks = ceil_div<std::int64_t>(p.rows * p.rank, kLoraSumThreads);
  }
  if (kLoraSumsRows<kPass>) {
    column_blocks = p.groups * ceil_div<std::int64_t>(p.width * p.rank, kLoraSumsPerBlock);
  }
  if (row_blocks + column_blocks == 0) return cudaSuccess;
  return ESP_LAUNCH(lora_sum_kernel<T>, static_cast<unsigned>(row_blocks + column_blocks),
                    kLoraSumThreads, 0, stream, p, static_cast<unsigned>(row_blocks));
}

}  // namespace espalier::kernels
