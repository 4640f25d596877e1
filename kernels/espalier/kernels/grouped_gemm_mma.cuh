// SPDX-License-Identifier: Apache-2.0
// Tiles of 128 x 128 with k in steps of 32, four steps under way in shared memory (64 KB); 4 warps
// with 64 x 64 elements each in registers, two blocks to a multiprocessor. A step is read through
// ldmatrix from 16-byte chunks that are permuted so that its 8 rows lie in different banks.
#pragma once

#include <espalier/kernels/grouped_gemm_mma.hpp>
#include <espalier/kernels/mma.cuh>
#include <espalier/kernels/row_tiles.cuh>

namespace espalier::kernels {

inline constexpr int kMmaTile = 128, kMmaDepth = 32, kMmaStages = 4, kMmaThreads = 128;

template <class C, class A, class B>
inline constexpr bool kMmaMultiplies = std::is_same_v<A, B> && !std::is_same_v<A, float> &&
                                       (std::is_same_v<C, A> || std::is_same_v<C, float>);

template <class... T>
bool grouped_gemm_mma_fits(std::int64_t n, std::int64_t k, const T*... p) {
  return n % 8 == 0 && k % 8 == 0 && ((reinterpret_cast<std::uintptr_t>(p) % 16 == 0) && ...);
}

/// One step of one operand: 128 rows of a (or columns of b) by 32 of k, as [128][32] where k is
/// contiguous in memory and as [32][128] where it is not.
template <class T, bool kDepthInner>
struct OperandTile {
  static constexpr int kInner = kDepthInner ? kMmaDepth : kMmaTile;
  static constexpr int kChunks = kInner / 8;  // of 16 bytes in a row

  T v[kMmaTile * kMmaDepth];

  __device__ __forceinline__ T* chunk(int row, int c) {
    return v + row * kInner + (c ^ (kDepthInner ? row / 2 % 4 : row % 8)) * 8;
  }

  /// The 16 x 16 elements at (`side`, `depth`) for one operand of the instruction.
  template <bool kIsA>
  __device__ __forceinline__ void fragment(unsigned (&r)[4], int side, int depth) {
    const int lane = threadIdx.x % kWarp;
    const int low = lane / 8 % 2 * 8, high = lane / 16 * 8;  // the order of the four 8 x 8 tiles
    side += kIsA ? low : high;
    depth += kIsA ? high : low;
    if constexpr (kDepthInner) {
      ldmatrix<4>(r, chunk(side + lane % 8, depth / 8));
    } else {
      ldmatrix<4, true>(r, chunk(depth + lane % 8, side / 8));
    }
  }
};

/// Where an operand of a block begins in memory, and how much of it there is.
template <class T, bool kDepthInner>
struct OperandSource {
  const T* p;
  std::int64_t stride, side, depth;

  /// Starts the copies of k from `first` on; what does not exist becomes 0.
  __device__ __forceinline__ void start_copy(OperandTile<T, kDepthInner>& to,
                                             std::int64_t first) const {
    constexpr int kChunks = OperandTile<T, kDepthInner>::kChunks;
    const int c = threadIdx.x % kChunks;
#pragma unroll
    for (int i = 0; i < kMmaTile * kMmaDepth / 8 / kMmaThreads; ++i) {
      const int row = threadIdx.x / kChunks + i * (kMmaThreads / kChunks);
      const std::int64_t at_side = kDepthInner ? row : 8 * c;
      const std::int64_t at_depth = first + (kDepthInner ? 8 * c : row);
      const bool exists = at_side < side && at_depth < depth;
      const std::int64_t at =
          kDepthInner ? at_side * stride + at_depth : at_depth * stride + at_side;
      cp_async<16>(to.chunk(row, c), exists ? p + at : p, exists ? 16 : 0);
    }
  }
};

/// 64 x 64 sums of a warp: mma tiles [4][8], of 16 x 8.
struct WarpSums {
  float v[4][8][4] = {};
};

template <class T, bool kInnerA, bool kInnerB>
struct MmaStage {
  OperandTile<T, kInnerA> a;
  OperandTile<T, kInnerB> b;
};

template <class Stage>
__device__ __forceinline__ void multiply_stage(WarpSums& sum, Stage& s, int row, int col) {
  using T = std::remove_reference_t<decltype(*s.a.v)>;
#pragma unroll
  for (int depth = 0; depth < kMmaDepth; depth += 16) {
    unsigned a[4][4], b[4][4];
#pragma unroll
    for (int i = 0; i < 4; ++i) s.a.template fragment<true>(a[i], row + 16 * i, depth);
#pragma unroll
    for (int j = 0; j < 4; ++j) s.b.template fragment<false>(b[j], col + 16 * j, depth);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const unsigned half[2] = {b[j / 2][j % 2 * 2], b[j / 2][j % 2 * 2 + 1]};
        mma_m16n8k16<T>(sum.v[i][j], a[i], half);
      }
    }
  }
}

/// c [rows, cols] at `c` = alpha · a · b + beta · c, of which this block owns up to 128 x 128.
template <class C, class T, bool kInnerA, bool kInnerB>
__device__ __forceinline__ void mma_tile(C* c, std::int64_t c_stride,
                                         const OperandSource<T, kInnerA>& a,
                                         const OperandSource<T, kInnerB>& b, float alpha,
                                         float beta) {
  using Stage = MmaStage<T, kInnerA, kInnerB>;
  ESP_DYN_SHARED(Stage, stages);
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int row = warp / 2 * 64, col = warp % 2 * 64;
  const int steps = static_cast<int>(ceil_div<std::int64_t>(a.depth, kMmaDepth));
  const auto start = [&](int step) {
    if (step < steps) {
      a.start_copy(stages[step % kMmaStages].a, std::int64_t{step} * kMmaDepth);
      b.start_copy(stages[step % kMmaStages].b, std::int64_t{step} * kMmaDepth);
    }
    cp_async_commit();  // empty at the end, so that the count of groups stays the same
  };
  WarpSums sum;
  for (int step = 0; step < kMmaStages - 1; ++step) start(step);
  for (int step = 0; step < steps; ++step) {
    cp_async_wait<kMmaStages - 2>();
    __syncthreads();  // this step has landed for all, and all have read the step before it
    start(step + kMmaStages - 1);
    multiply_stage(sum, stages[step % kMmaStages], row, col);
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int r = row + 8 * i + lane / 4;
    if (r >= a.side) continue;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int at = col + 8 * j + 2 * (lane % 4);
      if (at >= b.side) continue;
      C* to = c + r * c_stride + at;
      const float* s = sum.v[i / 2][j] + i % 2 * 2;
      Vector<C, 2> out;
      if (beta != 0) {
        const auto old = load<C, 2>(to);
        out = {from_float<C>(alpha * s[0] + beta * to_float(old.v[0])),
               from_float<C>(alpha * s[1] + beta * to_float(old.v[1]))};
      } else {
        out = {from_float<C>(alpha * s[0]), from_float<C>(alpha * s[1])};
      }
      store(to, out);
    }
  }
}

template <GemmForm kForm, class C, class T>
__global__ void __launch_bounds__(kMmaThreads, 2)
    grouped_gemm_mma_kernel(C* c, const T* a, const T* const* b, const std::int32_t* offsets,
                            int groups, std::int64_t row_tiles, std::int64_t n, std::int64_t k,
                            float alpha, float beta) {
  constexpr bool kTransposed = kForm == GemmForm::nt;
  const auto index = tile_of_block(blockIdx.x, row_tiles, ceil_div<std::int64_t>(n, kMmaTile));
  const RowTile tile = find_row_tile(offsets, groups, index.row, kMmaTile);
  if (tile.group < 0) return;
  const std::int64_t col = index.col * kMmaTile;
  const T* weight = b[tile.group] + col * (kTransposed ? k : 1);
  mma_tile(c + tile.begin * n + col, n,
           OperandSource<T, true>{a + tile.begin * k, k, tile.end - tile.begin, k},
           OperandSource<T, kTransposed>{weight, kTransposed ? k : n, n - col, k}, alpha, beta);
}

template <class C, class T>
__global__ void __launch_bounds__(kMmaThreads, 2)
    grouped_gemm_mma_tn_kernel(C* const* c, const T* a, const T* b, const std::int32_t* offsets,
                               std::int64_t m, std::int64_t n, float alpha, float beta) {
  const auto index = tile_of_block(blockIdx.x, ceil_div<std::int64_t>(m, kMmaTile),
                                   ceil_div<std::int64_t>(n, kMmaTile));
  const std::int64_t begin = offsets[blockIdx.y], depth = offsets[blockIdx.y + 1] - begin;
  const std::int64_t row = index.row * kMmaTile, col = index.col * kMmaTile;
  mma_tile(c[blockIdx.y] + row * n + col, n,
           OperandSource<T, false>{a + begin * m + row, m, m - row, depth},
           OperandSource<T, false>{b + begin * n + col, n, n - col, depth}, alpha, beta);
}

/// Launches with the shared memory of the stages, which is more than a kernel has unasked.
template <class... P, class... A>
cudaError_t launch_mma(void (*kernel)(P...), dim3 grid, cudaStream_t stream, A... arguments) {
  constexpr int kBytes = 2 * kMmaStages * kMmaTile * kMmaDepth * 2;
  const cudaError_t error =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  return ESP_LAUNCH(kernel, grid, kMmaThreads, kBytes, stream, arguments...);
}

template <GemmForm kForm, class C, class T>
cudaError_t grouped_gemm_mma_rows(C* c, const T* a, const T* const* b, const std::int32_t* offsets,
                                  int groups, std::int64_t rows, std::int64_t n, std::int64_t k,
                                  float alpha, float beta, cudaStream_t stream) {
  if (!grouped_gemm_mma_fits(n, k, c, a)) return cudaErrorInvalidValue;
  if (rows == 0 || n == 0 || groups == 0) return cudaSuccess;
  const std::int64_t row_tiles = most_row_tiles(rows, groups, kMmaTile);
  const auto blocks = static_cast<unsigned>(row_tiles * ceil_div<std::int64_t>(n, kMmaTile));
  return launch_mma(grouped_gemm_mma_kernel<kForm, C, T>, blocks, stream, c, a, b, offsets, groups,
                    row_tiles, n, k, alpha, beta);
}

template <class C, class T>
cudaError_t grouped_gemm_mma_tn(C* const* c, const T* a, const T* b, const std::int32_t* offsets,
                                int groups, std::int64_t m, std::int64_t n, float alpha, float beta,
                                cudaStream_t stream) {
  if (!grouped_gemm_mma_fits(m, n, a, b)) return cudaErrorInvalidValue;
  if (m == 0 || n == 0 || groups == 0) return cudaSuccess;
  const auto tiles = ceil_div<std::int64_t>(m, kMmaTile) * ceil_div<std::int64_t>(n, kMmaTile);
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(groups));
  return launch_mma(grouped_gemm_mma_tn_kernel<C, T>, grid, stream, c, a, b, offsets, m, n, alpha,
                    beta);
}

}  // namespace espalier::kernels
