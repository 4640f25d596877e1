// SPDX-License-Identifier: Apache-2.0
// Implementation of lora.hpp with tensor cores of sm_80 and later: r up to 64. A block of 8 warps
// streams its 512 columns of a chunk of rows through shared memory in stages of 64 x 128, four
// under way; a stage is multiplied as it lies (sums over columns) and transposed (sums over rows),
// so that one read serves both. The factor's tile stays in shared memory, the sums over rows in
// registers. Shared memory of a block at r up to 16, 32, 64: 88, 112, 160 KB; up to 32 two blocks
// share a multiprocessor of sm_90.
#pragma once

#include <espalier/kernels/lora_pass.cuh>
#include <espalier/kernels/mma.cuh>

namespace espalier::kernels {

inline constexpr int kLoraThreads = 256, kLoraStages = 4;
inline constexpr int kLoraStageRows = 64, kLoraStageColumns = 128;
inline constexpr int kLoraSteps = kLoraColumns / kLoraStageColumns;
inline constexpr int kLoraMaxRank = 64;

/// 16-byte chunks of a row are permuted so that those of 8 rows below each other lie in different
/// banks.
template <class T, int kTileRows, int kTileColumns>
struct LoraTile {
  static constexpr int kRows = kTileRows, kColumns = kTileColumns, kChunks = kTileColumns / 8;

  alignas(128) T v[kRows * kColumns];

  __device__ __forceinline__ T* chunk(int row, int c) {
    return v + row * kColumns + (c ^ (kChunks < 8 ? row / (8 / kChunks) % kChunks : row % 8)) * 8;
  }
  /// The 16 x 16 elements at (row, column) for one operand of the instruction, whose k runs along
  /// the columns or, not kInner, along the rows.
  template <bool kIsA, bool kInner>
  __device__ __forceinline__ void fragment(unsigned (&r)[4], int row, int column) {
    const int lane = threadIdx.x % kWarp;
    const int low = lane / 8 % 2 * 8, high = lane / 16 * 8;  // the order of the four 8 x 8 tiles
    row += kIsA == kInner ? low : high;
    column += kIsA == kInner ? high : low;
    ldmatrix<4, !kInner>(r, chunk(row + lane % 8, column / 8));
  }
  /// Two operands b in succession, k of 32: (row, column) is their first k and their 8 n.
  template <bool kInner>
  __device__ __forceinline__ void deep_fragment(unsigned (&r)[4], int row, int column) {
    const int lane = threadIdx.x % kWarp;
    if constexpr (kInner) {
      ldmatrix<4>(r, chunk(row + lane % 8, column / 8 + lane / 8));
    } else {
      ldmatrix<4, true>(r, chunk(row + lane, column / 8));
    }
  }
};

/// Rows in memory of which a block copies tiles; what does not exist becomes 0.
template <class T>
struct LoraSource {
  const T* p;
  std::int64_t stride, rows, columns;

  template <class Tile>
  __device__ __forceinline__ void start_copy(Tile& to, std::int64_t row, int column) const {
    constexpr int kItems = Tile::kRows * Tile::kChunks;
#pragma unroll
    for (int first = 0; first < kItems; first += kLoraThreads) {
      const int item = first + static_cast<int>(threadIdx.x);
      if (kItems % kLoraThreads != 0 && item >= kItems) break;
      const int r = item / Tile::kChunks, c = item % Tile::kChunks;
      const bool exists = row + r < rows && column + 8 * c < columns;
      cp_async<16>(to.chunk(r, c), exists ? p + (row + r) * stride + column + 8 * c : p,
                   exists ? 16 : 0);
    }
  }
};

/// A factor's tile as it lies in memory, [512][r] or [r][512].
template <class T, int kRank, bool kRankInner>
using LoraFactor = std::conditional_t<kRankInner, LoraTile<T, kLoraColumns, kRank>,
                                      LoraTile<T, kRank, kLoraColumns>>;

template <class T, int kRank, bool kRankInner>
__device__ __forceinline__ void load_lora_factor(LoraFactor<T, kRank, kRankInner>& to,
                                                 const float* factor, std::int64_t column,
                                                 std::int64_t width, int rank) {
  constexpr int kChunks = LoraFactor<T, kRank, kRankInner>::kChunks;
#pragma unroll 4
  for (int item = threadIdx.x; item < kLoraColumns * kRank / 8; item += kLoraThreads) {
    const int row = item / kChunks, c = item % kChunks;
    const std::int64_t at = column + (kRankInner ? row : 8 * c);
    const int j = kRankInner ? 8 * c : row;
    Vector<float, 4> low = {}, high = {};
    if (at < width && j < rank) {
      const float* from = factor + lora_at<kRankInner>(at, j, width, rank);
      low = load<float, 4>(from);
      high = load<float, 4>(from + 4);
    }
    Vector<T, 8> v;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      v.v[i] = from_float<T>(low.v[i]);
      v.v[4 + i] = from_float<T>(high.v[i]);
    }
    store(to.chunk(row, c), v);
  }
}

template <class T, int kRank, bool kRankInner, bool kFactor, bool kSmall>
struct LoraShared {
  struct None {};
  LoraTile<T, kLoraStageRows, kLoraStageColumns> stage[kLoraStages];
  std::conditional_t<kSmall, LoraTile<T, kLoraStageRows, kRank>, None> small[kLoraStages];
  std::conditional_t<kFactor, LoraFactor<T, kRank, kRankInner>, None> factor;
};

/// Keeps the stages ahead of the block: by 64 rows, within these by 128 columns. The rows of [R, r]
/// that belong to a stage come with the first of its 64 rows.
template <class T, class Shared, bool kSmall>
struct LoraProducer {
  Shared& shared;
  LoraSource<T> matrix, small;
  int steps;  // stages side by side
  int started = 0, step = 0, block = 0;

  __device__ __forceinline__ void start() {
    const std::int64_t row = std::int64_t{block} * kLoraStageRows;
    if (row < matrix.rows) {
      matrix.start_copy(shared.stage[started % kLoraStages], row, step * kLoraStageColumns);
      if constexpr (kSmall) {
        if (step == 0) small.start_copy(shared.small[block % kLoraStages], row, 0);
      }
    }
    cp_async_commit();  // empty at the end, so that the count of groups stays the same
    ++started;
    if (++step == steps) {
      step = 0;
      ++block;
    }
  }
  /// The next stage has landed for all, and all are done with the one before it.
  __device__ __forceinline__ void wait() {
    cp_async_wait<kLoraStages - 2>();
    __syncthreads();
  }
};

__device__ __forceinline__ int lora_warp() {
  return static_cast<int>(threadIdx.x) / kWarp;
}

/// sum += stage · factor: 16 rows and half of the ranks for each warp.
template <class T, int kRank, bool kRankInner, class Stage, class Factor>
__device__ __forceinline__ void sum_lora_columns(float (&sum)[kRank / 16][4], Stage& stage,
                                                 Factor& factor, int column) {
  const int row = lora_warp() % 4 * 16, rank = lora_warp() / 4 * (kRank / 2);
#pragma unroll kRank < 64 ? 4 : 2  // registers
  for (int k = 0; k < kLoraStageColumns; k += 32) {
    unsigned a[2][4];
    stage.template fragment<true, true>(a[0], row, k);
    stage.template fragment<true, true>(a[1], row, k + 16);
#pragma unroll
    for (int i = 0; i < kRank / 16; ++i) {
      unsigned b[4];
      if constexpr (kRankInner) {
        factor.template deep_fragment<false>(b, column + k, rank + 8 * i);
      } else {
        factor.template deep_fragment<true>(b, rank + 8 * i, column + k);
      }
      const unsigned first[2] = {b[0], b[1]}, second[2] = {b[2], b[3]};
      mma_m16n8k16<T>(sum[i], a[0], first);
      mma_m16n8k16<T>(sum[i], a[1], second);
    }
  }
}

/// sum += stageᵀ · small: 16 columns and all ranks for each warp.
template <class T, int kRank, class Stage, class Small>
__device__ __forceinline__ void sum_lora_rows(float (&sum)[kRank / 8][4], Stage& stage,
                                              Small& small) {
#pragma unroll
  for (int k = 0; k < kLoraStageRows; k += 16) {
    unsigned a[4];
    stage.template fragment<true, false>(a, k, lora_warp() * 16);
#pragma unroll
    for (int i = 0; i < kRank / 16; ++i) {
      unsigned b[4];
      small.template fragment<false, false>(b, k, 16 * i);
      const unsigned low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
      mma_m16n8k16<T>(sum[2 * i], a, low);
      mma_m16n8k16<T>(sum[2 * i + 1], a, high);
    }
  }
}

template <int kRank>
__device__ __forceinline__ void store_lora_tile_sums(float* to, std::int64_t rows, int rank,
                                                     const float (&sum)[kRank / 16][4]) {
  const int lane = threadIdx.x % kWarp, row = lora_warp() % 4 * 16 + lane / 4;
  const int first = lora_warp() / 4 * (kRank / 2) + 2 * (lane % 4);
#pragma unroll
  for (int i = 0; i < kRank / 16; ++i) {
    const int j = first + 8 * i;
    if (j >= rank) continue;
    if (row < rows) store(to + row * rank + j, Vector<float, 2>{sum[i][0], sum[i][1]});
    if (row + 8 < rows) store(to + (row + 8) * rank + j, Vector<float, 2>{sum[i][2], sum[i][3]});
  }
}

template <int kRank, bool kRankInner>
__device__ __forceinline__ void store_lora_gradient(const LoraGradient& gradient,
                                                    std::int64_t column, std::int64_t width,
                                                    int rank, const float (&sum)[kRank / 8][4]) {
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const std::int64_t c = column + lora_warp() * 16 + lane / 4 + 8 * half;
    if (c >= width) continue;
#pragma unroll
    for (int i = 0; i < kRank / 8; ++i) {
      const int j = 8 * i + 2 * (lane % 4);
      if (j >= rank) continue;
      const float low = gradient.scale * sum[i][2 * half];
      const float high = gradient.scale * sum[i][2 * half + 1];
      float* to = gradient.to + lora_at<kRankInner>(c, j, width, rank);
      if constexpr (kRankInner) {
        store(to, Vector<float, 2>{low, high});
      } else {
        to[0] = low;
        to[width] = high;
      }
    }
  }
}

/// A block's rows of one group, its columns, and how many stages lie beside each other in these.
struct LoraBlock {
  RowTile tile;
  std::int64_t rows, column, columns;
  int steps;

  __device__ __forceinline__ explicit LoraBlock(const LoraSizes& p)
      : tile(find_row_tile(p.offsets, p.groups, blockIdx.x, p.chunk)),
        rows(tile.end - tile.begin),
        column(std::int64_t{blockIdx.y} * kLoraColumns),
        columns(p.width - column),
        steps(columns < kLoraColumns ? ceil_div(static_cast<int>(columns), kLoraStageColumns)
                                     : kLoraSteps) {}
};

template <class T, int kRank, LoraPass kPass>
using LoraPassShared =
    LoraShared<T, kRank, kLoraRankInner<kPass>, kLoraSumsColumns<kPass>, kLoraSumsRows<kPass>>;

template <class T, int kRank, LoraPass kPass>
__global__ void __launch_bounds__(kLoraThreads, kRank < 64 ? 2 : 1)
    lora_mma_kernel(LoraPassArguments<T> p) {
  constexpr bool kColumns = kLoraSumsColumns<kPass>, kRows = kLoraSumsRows<kPass>;
  constexpr bool kRankInner = kLoraRankInner<kPass>;
  using Shared = LoraPassShared<T, kRank, kPass>;
  ESP_DYN_SHARED(Shared, shared);
  const LoraBlock block(p);
  if (block.tile.group < 0) return;
  LoraProducer<T, Shared, kRows> producer{
      *shared,
      {p.matrix + block.tile.begin * p.width + block.column, p.width, block.rows, block.columns},
      {kRows ? p.small + block.tile.begin * p.rank : nullptr, p.rank, block.rows, p.rank},
      block.steps};
#pragma unroll
  for (int i = 0; i < kLoraStages - 1; ++i) producer.start();
  if constexpr (kColumns) {
    load_lora_factor<T, kRank, kRankInner>(shared->factor, p.factor[block.tile.group], block.column,
                                           p.width, p.rank);
  }
  float of_column[kLoraSteps][kRank / 8][4] = {};
  int stage = 0;
  for (int down = 0; std::int64_t{down} * kLoraStageRows < block.rows; ++down) {
    float of_row[kRank / 16][4] = {};
#pragma unroll
    for (int step = 0; step < kLoraSteps; ++step) {
      if (step >= block.steps) break;
      producer.wait();
      producer.start();
      auto& now = shared->stage[stage++ % kLoraStages];
      if constexpr (kColumns) {
        sum_lora_columns<T, kRank, kRankInner>(of_row, now, shared->factor,
                                               step * kLoraStageColumns);
      }
      if constexpr (kRows) {
        sum_lora_rows<T, kRank>(of_column[step], now, shared->small[down % kLoraStages]);
      }
    }
    if constexpr (kColumns) {
      const std::int64_t first = std::int64_t{down} * kLoraStageRows;
      float* to = p.tile_sums + (blockIdx.y * p.rows + block.tile.begin + first) * p.rank;
      store_lora_tile_sums<kRank>(to, block.rows - first, p.rank, of_row);
    }
  }
  if constexpr (kRows) {
    const LoraGradient gradient = lora_gradient(p, block.tile);
#pragma unroll
    for (int step = 0; step < kLoraSteps; ++step) {
      store_lora_gradient<kRank, kRankInner>(gradient, block.column + step * kLoraStageColumns,
                                             p.width, p.rank, of_column[step]);
    }
  }
}

/// stage (+)= scale · small · factor, by each warp for its 16 rows and 64 columns, and from there
/// to memory, 16 bytes a lane.
template <class T, int kRank, bool kRankInner, class Stage, class Small, class Factor>
__device__ __forceinline__ void add_lora_update(Stage& stage, Small& small, Factor& factor,
                                                int column, float scale) {
  const int lane = threadIdx.x % kWarp;
  const int row = lora_warp() % 4 * 16, half = lora_warp() / 4 * (kLoraStageColumns / 2);
#pragma unroll
  for (int c = half; c < half + kLoraStageColumns / 2; c += 16) {
    float sum[2][4] = {};
#pragma unroll
    for (int k = 0; k < kRank; k += 16) {
      unsigned a[4], b[4];
      small.template fragment<true, true>(a, row, k);
      if constexpr (kRankInner) {
        factor.template fragment<false, true>(b, column + c, k);
      } else {
        factor.template fragment<false, false>(b, k, column + c);
      }
      const unsigned low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
      mma_m16n8k16<T>(sum[0], a, low);
      mma_m16n8k16<T>(sum[1], a, high);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* s = sum[i / 2] + i % 2 * 2;
      T* at = stage.chunk(row + i % 2 * 8 + lane / 4, c / 8 + i / 2) + 2 * (lane % 4);
      const auto old = load<T, 2>(at);
      store(at, Vector<T, 2>{from_float<T>(scale * s[0] + to_float(old.v[0])),
                             from_float<T>(scale * s[1] + to_float(old.v[1]))});
    }
  }
}

template <class T, class Stage>
__device__ __forceinline__ void store_lora_stage(T* to, std::int64_t stride, std::int64_t rows,
                                                 std::int64_t columns, Stage& stage) {
  const int lane = threadIdx.x % kWarp;
  const int c = lora_warp() / 4 * (kLoraStageColumns / 16) + lane % 8;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int r = lora_warp() % 4 * 16 + 4 * i + lane / 8;
    if (r < rows && 8 * c < columns) store(to + r * stride + 8 * c, load<T, 8>(stage.chunk(r, c)));
  }
}

template <class T, int kRank, bool kRankInner>
__global__ void __launch_bounds__(kLoraThreads, kRank < 64 ? 2 : 1)
    lora_mma_up_kernel(LoraUpArguments<T> p) {
  using Shared = LoraShared<T, kRank, kRankInner, true, true>;
  ESP_DYN_SHARED(Shared, shared);
  const LoraBlock block(p);
  if (block.tile.group < 0) return;
  T* y = p.y + block.tile.begin * p.width + block.column;
  LoraProducer<T, Shared, true> producer{
      *shared,
      {y, p.width, block.rows, p.add ? block.columns : 0},
      {p.small + block.tile.begin * p.rank, p.rank, block.rows, p.rank},
      block.steps};
#pragma unroll
  for (int i = 0; i < kLoraStages - 1; ++i) producer.start();
  load_lora_factor<T, kRank, kRankInner>(shared->factor, p.factor[block.tile.group], block.column,
                                         p.width, p.rank);
  int stage = 0;
  for (int down = 0; std::int64_t{down} * kLoraStageRows < block.rows; ++down) {
    const std::int64_t first = std::int64_t{down} * kLoraStageRows;
    for (int step = 0; step < block.steps; ++step) {
      producer.wait();
      producer.start();
      auto& now = shared->stage[stage++ % kLoraStages];
      add_lora_update<T, kRank, kRankInner>(now, shared->small[down % kLoraStages], shared->factor,
                                            step * kLoraStageColumns, p.scale);
      __syncwarp();
      store_lora_stage(y + first * p.width + step * kLoraStageColumns, p.width, block.rows - first,
                       block.columns - step * kLoraStageColumns, now);
    }
  }
}

/// Launches with more shared memory than a kernel has unasked; cudaErrorNotSupported where a block
/// of this device cannot have it.
template <class P>
cudaError_t launch_lora_mma(void (*kernel)(P), std::size_t shared_bytes, const P& p,
                            cudaStream_t stream) {
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
  if (error == cudaErrorInvalidValue) {
    cudaGetLastError();  // or the next launch would report it
    return cudaErrorNotSupported;
  }
  if (error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(most_row_tiles(p.rows, p.groups, p.chunk)),
                  static_cast<unsigned>(ceil_div<std::int64_t>(p.width, kLoraColumns)));
  return ESP_LAUNCH(kernel, grid, kLoraThreads, shared_bytes, stream, p);
}

template <LoraPass kPass, int kRank, class T>
cudaError_t lora_mma_pass_of_rank(const LoraPassArguments<T>& p, cudaStream_t stream) {
  return launch_lora_mma(lora_mma_kernel<T, kRank, kPass>, sizeof(LoraPassShared<T, kRank, kPass>),
                         p, stream);
}
template <LoraPass kPass, class T>
cudaError_t lora_mma_pass(const LoraPassArguments<T>& p, cudaStream_t stream) {
  if (p.rank <= 16) return lora_mma_pass_of_rank<kPass, 16>(p, stream);
  if (p.rank <= 32) return lora_mma_pass_of_rank<kPass, 32>(p, stream);
  return lora_mma_pass_of_rank<kPass, 64>(p, stream);
}

template <bool kRankInner, int kRank, class T>
cudaError_t lora_mma_up_of_rank(const LoraUpArguments<T>& p, cudaStream_t stream) {
  return launch_lora_mma(lora_mma_up_kernel<T, kRank, kRankInner>,
                         sizeof(LoraShared<T, kRank, kRankInner, true, true>), p, stream);
}
template <bool kRankInner, class T>
cudaError_t lora_mma_up(const LoraUpArguments<T>& p, cudaStream_t stream) {
  if (p.rank <= 16) return lora_mma_up_of_rank<kRankInner, 16>(p, stream);
  if (p.rank <= 32) return lora_mma_up_of_rank<kRankInner, 32>(p, stream);
  return lora_mma_up_of_rank<kRankInner, 64>(p, stream);
}

}  // namespace espalier::kernels
