// SPDX-License-Identifier: Apache-2.0
// Tiles of 128 x 256 with k in steps of 64, four steps (192 KB) under way; one block of three
// warpgroups stays on each multiprocessor and takes every gridDim-th tile. One thread of the first
// warpgroup fills steps through TMA as soon as both others have read them; each of these multiplies
// 64 rows, and stores them while the next tile's steps arrive.
//
// Both operands come through one tensor map per group: with a's map ending where the group ends,
// the rest of its last tile is 0, which tn (where rows are k) needs, and c is all that must be
// masked. The pointers to weights are known to the device alone, so a kernel in front writes the
// maps. Bulk copies by row would need no maps, but cannot lay out rows the way wgmma reads them.
#pragma once

#include <espalier/kernels/grouped_gemm_mma.cuh>
#include <espalier/kernels/grouped_gemm_wgmma.hpp>
#include <espalier/kernels/row_tiles.cuh>
#include <espalier/kernels/tma.cuh>
#include <espalier/kernels/wgmma.cuh>

namespace espalier::kernels {

inline constexpr int kWgmmaTileM = 128, kWgmmaTileN = kWgmmaColumns, kWgmmaTileK = kTmaColumns;
inline constexpr int kWgmmaStages = 4, kWgmmaThreads = 3 * kWarpgroup;

template <GemmForm kForm>
inline constexpr bool kKMajorA = kForm != GemmForm::tn;
template <GemmForm kForm>
inline constexpr bool kKMajorB = kForm == GemmForm::nt;

/// What the grouped products have in common: c [rows of the group or m, n], sums over k or the
/// rows.
template <GemmForm kForm, class C>
struct GroupedProduct {
  static constexpr bool kRowsAreDepth = kForm == GemmForm::tn;
  std::conditional_t<kRowsAreDepth, C* const*, C*> c;
  const TensorMap* maps;  // of a and b, group by group
  const std::int32_t* offsets;
  int groups;
  std::int64_t m_or_k, n;
  float alpha, beta;
};

/// One step of both operands: boxes of 64 elements in a row, 1024 bytes aligned.
template <class T>
struct WgmmaStage {
  T a[kWgmmaTileM * kWgmmaTileK];
  T b[kWgmmaTileN * kWgmmaTileK];
};

struct WgmmaPipeline {
  Mbarrier full[kWgmmaStages];   // the step has landed
  Mbarrier empty[kWgmmaStages];  // all eight warps have read it
};

/// Producer and consumers walk through the same stages, each at its own pace.
struct PipelinePosition {
  int stage = 0;
  unsigned phase = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kWgmmaStages) stage = 0, phase ^= 1;
  }
};

/// Finds the tiles of a block, whose numbers grow: group by group, in a group down the columns of
/// bands of row tiles. All threads that walk find the same.
template <GemmForm kForm, class C>
struct TileWalk {
  const GroupedProduct<kForm, C>& p;
  int group = 0;
  std::int64_t first = 0;         // number of the group's first tile
  std::int64_t row = 0, col = 0;  // of c, where the tile begins
  std::int64_t rows_left = 0, depth = 0;

  __device__ __forceinline__ bool find(std::int64_t number) {
    const std::int64_t col_tiles = ceil_div<std::int64_t>(p.n, kWgmmaTileN);
    for (; group < p.groups; ++group) {
      const std::int64_t rows = p.offsets[group + 1] - p.offsets[group];
      const std::int64_t height = p.kRowsAreDepth ? p.m_or_k : rows;
      const std::int64_t row_tiles = ceil_div<std::int64_t>(height, kWgmmaTileM);
      if (number < first + row_tiles * col_tiles) {
        const TileIndex at = tile_of_block(number - first, row_tiles, col_tiles);
        row = at.row * kWgmmaTileM;
        col = at.col * kWgmmaTileN;
        rows_left = height - row;
        depth = p.kRowsAreDepth ? rows : p.m_or_k;
        return true;
      }
      first += row_tiles * col_tiles;
    }
    return false;
  }
  __device__ __forceinline__ int steps() const {
    return static_cast<int>(ceil_div<std::int64_t>(depth, kWgmmaTileK));
  }
  __device__ __forceinline__ C* c() const {
    if constexpr (GroupedProduct<kForm, C>::kRowsAreDepth) {
      return p.c[group] + row * p.n + col;
    } else {
      return p.c + (p.offsets[group] + row) * p.n + col;
    }
  }
};

template <bool kKMajor, int kSide, class T>
__device__ __forceinline__ void load_operand(T* to, const TensorMap* map, std::int64_t side,
                                             int depth, Mbarrier& landed) {
  if constexpr (kKMajor) {
    tma_load(to, map, static_cast<int>(side), depth, landed);
  } else {
#pragma unroll
    for (int i = 0; i < kSide; i += kTmaColumns) {
      tma_load(to + i * kWgmmaTileK, map, depth, static_cast<int>(side) + i, landed);
    }
  }
}

/// The one thread that fills stages.
template <GemmForm kForm, class C, class T>
__device__ __forceinline__ void load_tiles(const GroupedProduct<kForm, C>& p, WgmmaStage<T>* stages,
                                           WgmmaPipeline& pipe) {
  TileWalk<kForm, C> walk{p};
  PipelinePosition at;
  int acquired = -1;  // the group whose maps may be used
  for (std::int64_t number = blockIdx.x; walk.find(number); number += gridDim.x) {
    const TensorMap* map_a = p.maps + 2 * walk.group;
    const TensorMap* map_b = map_a + 1;
    const int steps = walk.steps();
    if (steps > 0 && acquired != walk.group) {
      tensor_map_acquire(map_a);
      tensor_map_acquire(map_b);
      acquired = walk.group;
    }
    for (int step = 0; step < steps; ++step, at.advance()) {
      WgmmaStage<T>& stage = stages[at.stage];
      pipe.empty[at.stage].wait(at.phase ^ 1);
      pipe.full[at.stage].arrive_and_expect(sizeof stage);
      load_operand<kKMajorA<kForm>, kWgmmaTileM>(stage.a, map_a, walk.row, step * kWgmmaTileK,
                                                 pipe.full[at.stage]);
      load_operand<kKMajorB<kForm>, kWgmmaTileN>(stage.b, map_b, walk.col, step * kWgmmaTileK,
                                                 pipe.full[at.stage]);
    }
  }
}

/// c = alpha · sum + beta · c for the elements of this thread that exist; `row` is its first. Two
/// neighbours swap halves, so that each has four columns in a row.
template <class C>
__device__ __forceinline__ void store_sums(C* c, std::int64_t stride, int row, std::int64_t rows,
                                           std::int64_t cols, const float (&sum)[kWgmmaColumns / 2],
                                           float alpha, float beta) {
  const int lane = threadIdx.x % kWarp;
  const bool odd = lane % 2 != 0;
#pragma unroll
  for (int i = 0; i < kWgmmaColumns / 8; ++i) {
    const int half = i % 2, block = i / 2;  // rows row + 8 half, columns from 16 block on
    const float* low = sum + 8 * block + 2 * half;
    const float* high = low + 4;
    float v[4];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const float theirs = __shfl_xor_sync(kAllLanes, odd ? low[j] : high[j], 1);
      v[j] = odd ? theirs : low[j];
      v[2 + j] = odd ? high[j] : theirs;
    }
    const int r = row + 8 * half, col = 16 * block + (odd ? 8 : 0) + lane % 4 / 2 * 4;
    if (r >= rows || col >= cols) continue;
    C* to = c + r * stride + col;
    Vector<C, 4> old{}, out;
    if (beta != 0) old = load<C, 4>(to);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float before = beta != 0 ? beta * to_float(old.v[j]) : 0.0f;
      out.v[j] = from_float<C>(alpha * v[j] + before);
    }
    store(to, out);
  }
}

/// A warpgroup that multiplies rows 64 `half` .. 64 `half` + 63 of every tile.
template <GemmForm kForm, class C, class T>
__device__ __forceinline__ void multiply_tiles(const GroupedProduct<kForm, C>& p,
                                               WgmmaStage<T>* stages, WgmmaPipeline& pipe,
                                               int half) {
  TileWalk<kForm, C> walk{p};
  PipelinePosition at;
  const bool speaks = threadIdx.x % kWarp == 0;
  for (std::int64_t number = blockIdx.x; walk.find(number); number += gridDim.x) {
    float sum[kWgmmaColumns / 2] = {};
    int reading = -1;  // the stage of the step before
    const int steps = walk.steps();
    for (int step = 0; step < steps; ++step, at.advance()) {
      const WgmmaStage<T>& stage = stages[at.stage];
      const auto a =
          wgmma_operand<kKMajorA<kForm>>(stage.a + half * kWgmmaRows * kWgmmaTileK, kWgmmaTileK);
      const auto b = wgmma_operand<kKMajorB<kForm>>(stage.b, kWgmmaTileK);
      pipe.full[at.stage].wait(at.phase);
      wgmma_fence(sum);
#pragma unroll
      for (int depth = 0; depth < kWgmmaTileK; depth += kWgmmaDepth) {
        wgmma<T, kKMajorA<kForm>, kKMajorB<kForm>>(sum, wgmma_advance<kKMajorA<kForm>>(a, depth),
                                                   wgmma_advance<kKMajorB<kForm>>(b, depth));
      }
      wgmma_commit();
      wgmma_wait<1>();  // the step before is multiplied
      if (speaks && reading >= 0) pipe.empty[reading].arrive();
      reading = at.stage;
    }
    wgmma_finish(sum);
    if (speaks && reading >= 0) pipe.empty[reading].arrive();
    const int row =
        half * kWgmmaRows + threadIdx.x % kWarpgroup / kWarp * 16 + threadIdx.x % kWarp / 4;
    store_sums(walk.c(), p.n, row, walk.rows_left, p.n - walk.col, sum, p.alpha, p.beta);
  }
}

template <GemmForm kForm, class C, class T>
__global__ void __launch_bounds__(kWgmmaThreads, 1)
    grouped_gemm_wgmma_kernel(const GroupedProduct<kForm, C> p) {
#if ESP_HAS_SM90A
  ESP_DYN_SHARED(unsigned char, memory);
  ESP_SHARED(WgmmaPipeline, pipe);
  auto* stages = reinterpret_cast<WgmmaStage<T>*>(memory + (-shared_address(memory) & 1023));
  if (threadIdx.x == 0) {
    for (int i = 0; i < kWgmmaStages; ++i) {
      pipe.full[i].init(1);
      pipe.empty[i].init(2 * kWarpgroup / kWarp);
    }
    fence_proxy_async();
  }
  __syncthreads();
  if (threadIdx.x < kWarpgroup) {
    keep_registers<40>();
    if (threadIdx.x == 0) load_tiles<kForm, C, T>(p, stages, pipe);
  } else {
    take_registers<232>();
    const int half = static_cast<int>(threadIdx.x / kWarpgroup) - 1;
    multiply_tiles<kForm, C, T>(p, stages, pipe, __shfl_sync(kAllLanes, half, 0));  // uniform
  }
#endif
}

/// One thread per group: the maps of its operands, from maps of matrices of the same widths.
template <GemmForm kForm, class T, class B>
__global__ void grouped_gemm_maps_kernel(const __grid_constant__ TensorMap a_like,
                                         const __grid_constant__ TensorMap b_like, TensorMap* maps,
                                         const T* a, std::int64_t a_columns, B b,
                                         std::int64_t b_columns, const std::int32_t* offsets,
                                         int groups) {
#if ESP_HAS_SM90A
  const int group = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (group >= groups) return;
  const std::int64_t begin = offsets[group];
  const unsigned rows = static_cast<unsigned>(offsets[group + 1] - begin);
  if (rows == 0) return;  // nothing is loaded for it
  TensorMap* map = maps + 2 * group;
  map[0] = a_like;
  map[1] = b_like;
  replace_matrix(map, a + begin * a_columns, rows);
  if constexpr (kForm == GemmForm::tn) {
    replace_matrix(map + 1, b + begin * b_columns, rows);
  } else {
    replace_matrix(map + 1, b[group], 0);
  }
  tensor_map_release();
#endif
}

/// The multiprocessors to fill, or why this device or this build cannot run the kernel: one without
/// a body has no shared memory.
template <class... P>
cudaError_t wgmma_multiprocessors(int& count, void (*kernel)(P...)) {
  int device = 0, major = 0;
  cudaFuncAttributes attributes;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  if (error != cudaSuccess) return error;
  if (major != 9) return cudaErrorNotSupported;
  error = cudaFuncGetAttributes(&attributes, kernel);
  if (error != cudaSuccess) return error;
  if (attributes.sharedSizeBytes == 0) return cudaErrorNotSupported;
  return cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
}

/// Maps, then products; of `tiles` tiles at most.
template <GemmForm kForm, class T, class C, class B>
cudaError_t grouped_gemm_wgmma(GroupedProduct<kForm, C> p, const T* a, B b, std::int64_t tiles,
                               void* workspace, cudaStream_t stream) {
  static_assert(2 * sizeof(TensorMap) == grouped_gemm_workspace(1));
  constexpr std::size_t kBytes = kWgmmaStages * sizeof(WgmmaStage<T>) + 1024;
  constexpr bool kDepthOuter = kForm == GemmForm::tn;
  const auto kernel = grouped_gemm_wgmma_kernel<kForm, C, T>;
  if (reinterpret_cast<std::uintptr_t>(workspace) % 128 != 0 || workspace == nullptr) {
    return cudaErrorInvalidValue;
  }
  int multiprocessors = 0;
  cudaError_t error = wgmma_multiprocessors(multiprocessors, kernel);
  if (error != cudaSuccess) return error;

  // Where the matrices begin, and the rows of those that end with a group, are replaced.
  TensorMap a_like, b_like;
  const std::int64_t b_columns = kForm == GemmForm::nt ? p.m_or_k : p.n;
  const std::int64_t b_rows = kForm == GemmForm::nt ? p.n : p.m_or_k;
  error = encode_tensor_map(a_like, a, 1, p.m_or_k, kDepthOuter ? kWgmmaTileK : kWgmmaTileM);
  if (error != cudaSuccess) return error;
  error = encode_tensor_map(b_like, a, b_rows, b_columns,
                            kForm == GemmForm::nt ? kWgmmaTileN : kWgmmaTileK);
  if (error != cudaSuccess) return error;
  error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;

  auto* maps = static_cast<TensorMap*>(workspace);
  p.maps = maps;
  error = ESP_LAUNCH((grouped_gemm_maps_kernel<kForm, T, B>),
                     static_cast<unsigned>(ceil_div(p.groups, kWarp)), kWarp, 0, stream, a_like,
                     b_like, maps, a, p.m_or_k, b, p.n, p.offsets, p.groups);
  if (error != cudaSuccess) return error;
  const auto blocks = static_cast<unsigned>(tiles < multiprocessors ? tiles : multiprocessors);
  return ESP_LAUNCH(kernel, blocks, kWgmmaThreads, kBytes, stream, p);
}

template <GemmForm kForm, class C, class T>
cudaError_t grouped_gemm_wgmma_rows(C* c, const T* a, const T* const* b,
                                    const std::int32_t* offsets, int groups, std::int64_t rows,
                                    std::int64_t n, std::int64_t k, float alpha, float beta,
                                    cudaStream_t stream, void* workspace) {
  if (!grouped_gemm_mma_fits(n, k, c, a)) return cudaErrorInvalidValue;
  if (rows == 0 || n == 0 || groups == 0) return cudaSuccess;
  const std::int64_t tiles =
      most_row_tiles(rows, groups, kWgmmaTileM) * ceil_div<std::int64_t>(n, kWgmmaTileN);
  return grouped_gemm_wgmma<kForm, T>(
      GroupedProduct<kForm, C>{c, nullptr, offsets, groups, k, n, alpha, beta}, a, b, tiles,
      workspace, stream);
}

template <class C, class T>
cudaError_t grouped_gemm_wgmma_tn(C* const* c, const T* a, const T* b, const std::int32_t* offsets,
                                  int groups, std::int64_t m, std::int64_t n, float alpha,
                                  float beta, cudaStream_t stream, void* workspace) {
  if (!grouped_gemm_mma_fits(m, n, a, b)) return cudaErrorInvalidValue;
  if (m == 0 || n == 0 || groups == 0) return cudaSuccess;
  const std::int64_t tiles =
      groups * ceil_div<std::int64_t>(m, kWgmmaTileM) * ceil_div<std::int64_t>(n, kWgmmaTileN);
  return grouped_gemm_wgmma<GemmForm::tn, T>(
      GroupedProduct<GemmForm::tn, C>{c, nullptr, offsets, groups, m, n, alpha, beta}, a, b, tiles,
      workspace, stream);
}

}  // namespace espalier::kernels
