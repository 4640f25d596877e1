// SPDX-License-Identifier: Apache-2.0
// What the attention kernels on tensor cores share: tiles in shared memory, the rows and keys of a
// block, products of tiles, and the softmax.
//
// The query rows of a kv head are packed: packed row m of a segment is query row m / (A / G) and
// head m % (A / G) of the group, so that the heads of a group read each key once and a few rows
// fill a tile.
#pragma once

#include <espalier/kernels/attention_mma.hpp>
#include <espalier/kernels/mma.cuh>
#include <espalier/kernels/row_tiles.cuh>

namespace espalier::kernels {

inline constexpr int kAttentionThreads = 128;  // of a block: 4 warps
inline constexpr int kAttentionKeys = 64;      // of a block of keys

template <class... P>
bool attention_mma_fits(const AttentionSizes& z, const P*... p) {
  return z.head_dim > 0 && z.head_dim <= 128 && z.head_dim % 8 == 0 &&
         ((reinterpret_cast<std::uintptr_t>(p) % 16 == 0) && ...);
}

/// kRows rows of one head each, kWidth (64 or 128) elements in 16-byte chunks, permuted so that the
/// same chunk of 8 rows lies in different banks.
template <class T, int kRowCount, int kWidth>
struct HeadTile {
  using Element = T;
  static constexpr int kRows = kRowCount, kChunks = kWidth / 8;
  static_assert(kChunks % 8 == 0);

  T v[kRows * kWidth];

  __device__ __forceinline__ T* chunk(int row, int c) {
    return v + row * kWidth + (c ^ row % 8) * 8;
  }

  /// Starts the copies of row r from at(r) where r < count; what does not exist becomes 0. There is
  /// at least one row.
  template <class At>
  __device__ __forceinline__ void start_copy(int count, int head_dim, const At& at) {
    const int c = threadIdx.x % kChunks;
#pragma unroll
    for (int i = 0; i < kRows * kChunks / kAttentionThreads; ++i) {
      const int row = threadIdx.x / kChunks + i * (kAttentionThreads / kChunks);
      const bool exists = row < count && 8 * c < head_dim;
      cp_async<16>(chunk(row, c), at(exists ? row : 0) + (exists ? 8 * c : 0), exists ? 16 : 0);
    }
  }

  /// 16 x 16 elements at (row, 8 c) as operand A; row is a multiple of 8 and c even, here and
  /// below.
  __device__ __forceinline__ void operand_a(unsigned (&r)[4], int row, int c) {
    ldmatrix<4>(r, lane_chunk(row, c, threadIdx.x % 16, threadIdx.x % kWarp / 16));
  }
  /// The same as operand B of a product with the transpose: rows are n. Two instructions' worth.
  __device__ __forceinline__ void operand_b_transposed(unsigned (&r)[4], int row, int c) {
    const int lane = threadIdx.x % kWarp;
    ldmatrix<4>(r, lane_chunk(row, c, lane / 16 * 8 + lane % 8, lane / 8 % 2));
  }
  /// The same as operand B: rows are k.
  __device__ __forceinline__ void operand_b(unsigned (&r)[4], int row, int c) {
    ldmatrix<4, true>(r, lane_chunk(row, c, threadIdx.x % 16, threadIdx.x % kWarp / 16));
  }

 private:
  /// chunk(row + lane_row, c + lane_c) so that a lane keeps one offset, and c only toggles bits of
  /// it.
  __device__ __forceinline__ const T* lane_chunk(int row, int c, int lane_row, int lane_c) const {
    const int offset = lane_row * kWidth + (lane_c ^ lane_row % 8) * 8;
    return v + row * kWidth + (offset ^ c * 8);
  }
};

/// 16 kM x 8 kN sums of a warp.
template <int kM, int kN>
struct WarpTile {
  static constexpr int kTilesM = kM, kTilesN = kN;
  float v[kM][kN][4] = {};
};

template <class T, int kM, int kN>
__device__ __forceinline__ void multiply_pair(WarpTile<kM, kN>& sum, const unsigned (&a)[kM][4],
                                              const unsigned (&b)[4], int j) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const unsigned of[2] = {b[2 * half], b[2 * half + 1]};
#pragma unroll
    for (int i = 0; i < kM; ++i) mma_m16n8k16<T>(sum.v[i][j + half], a[i], of);
  }
}

/// sum += a · bᵀ over the width of both, of a the 16 kM rows from `row_a`, of b the 8 kN from
/// `row_b`.
template <int kM, int kN, class A, class B>
__device__ __forceinline__ void multiply_transposed(WarpTile<kM, kN>& sum, A& a, int row_a, B& b,
                                                    int row_b) {
#pragma unroll
  for (int c = 0; c < A::kChunks; c += 2) {
    unsigned of_a[kM][4];
#pragma unroll
    for (int i = 0; i < kM; ++i) a.operand_a(of_a[i], row_a + 16 * i, c);
#pragma unroll
    for (int j = 0; j < kN; j += 2) {
      unsigned of_b[4];
      b.operand_b_transposed(of_b, row_b + 8 * j, c);
      multiply_pair<typename A::Element>(sum, of_a, of_b, j);
    }
  }
}

/// sum += a · b, a [16 kM, 8 kK] rounded to T, b its 8 kK rows, the columns from 8 `c` on.
template <int kM, int kN, int kK, class B>
__device__ __forceinline__ void multiply(WarpTile<kM, kN>& sum, const WarpTile<kM, kK>& a, B& b,
                                         int c = 0) {
  using T = typename B::Element;
#pragma unroll
  for (int k = 0; k < kK; k += 2) {
    unsigned of_a[kM][4];
#pragma unroll
    for (int i = 0; i < kM; ++i) {
      const auto& left = a.v[i][k];  // results of one product are operands of the next
      const auto& right = a.v[i][k + 1];
      of_a[i][0] = pair_of<T>(left[0], left[1]);
      of_a[i][1] = pair_of<T>(left[2], left[3]);
      of_a[i][2] = pair_of<T>(right[0], right[1]);
      of_a[i][3] = pair_of<T>(right[2], right[3]);
    }
#pragma unroll
    for (int j = 0; j < kN; j += 2) {
      unsigned of_b[4];
      b.operand_b(of_b, 8 * k, c + j);
      multiply_pair<T>(sum, of_a, of_b, j);
    }
  }
}

/// Rounds the sums of a warp, times factor(i, half) of each row, into the rows of a tile that only
/// this warp uses from `row` on.
template <class Tile, int kM, int kN, class Factor>
__device__ __forceinline__ void round_into(Tile& to, int row, const WarpTile<kM, kN>& sum,
                                           const Factor& factor, int c = 0) {
  using T = typename Tile::Element;
  const int lane = threadIdx.x % kWarp;
#pragma unroll
  for (int i = 0; i < kM; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float f = factor(i, half);
#pragma unroll
      for (int j = 0; j < kN; ++j) {
        T* p = to.chunk(row + 16 * i + 8 * half + lane / 4, c + j) + 2 * (lane % 4);
        store(p, Vector<T, 2>{from_float<T>(sum.v[i][j][2 * half] * f),
                              from_float<T>(sum.v[i][j][2 * half + 1] * f)});
      }
    }
  }
}

/// Writes `rows` rows of the tile from `row` on, of which those below `count` exist, to at(r); a
/// warp's work.
template <class Tile, class At>
__device__ __forceinline__ void write_rows(Tile& from, int row, int rows, int count, int head_dim,
                                           const At& at) {
  const int lane = threadIdx.x % kWarp, c = lane % Tile::kChunks;
  if (8 * c >= head_dim) return;
  for (int r = row + lane / Tile::kChunks; r < row + rows && r < count;
       r += kWarp / Tile::kChunks) {
    store(at(r) + 8 * c, load<typename Tile::Element, 8>(from.chunk(r, c)));
  }
}

/// kRows packed rows of one kv head of a segment.
template <class T>
struct QueryRows {
  AttentionSegment<T> segment;
  int first, count;  // of the segment's packed rows; 0: the block has nothing to do
  int group, heads, head;

  /// Which of the N · A rows of heads.
  __device__ __forceinline__ std::int64_t head_row(int r) const {
    const int m = first + r;
    return (segment.q_begin + m / group) * heads + head + m % group;
  }
  /// Position among the segment's keys.
  __device__ __forceinline__ int position(int r) const {
    return static_cast<int>(segment.kv_rows - segment.q_rows) + (first + r) / group;
  }
};

/// The blocks of a grid: kv heads beside each other, `tile` from 0.
__device__ __forceinline__ int kv_head_of_block(const AttentionSizes& z) {
  return static_cast<int>(blockIdx.x) % z.kv_heads;
}
__device__ __forceinline__ std::int64_t tile_of_block(const AttentionSizes& z) {
  return static_cast<int>(blockIdx.x) / z.kv_heads;
}
/// From the last: the rows that see most keys first, so that the short work fills the end.
__device__ __forceinline__ std::int64_t tile_of_block_reversed(const AttentionSizes& z) {
  return static_cast<int>(gridDim.x - 1 - blockIdx.x) / z.kv_heads;
}

/// The `height` rows of the block's tile, of its kv head; none where there is no such tile.
template <class T>
__device__ __forceinline__ QueryRows<T> query_rows_of_block(const AttentionSegment<T>* segments,
                                                            const AttentionSizes& z, int height) {
  const int group = z.heads / z.kv_heads;
  const GroupTile found = find_group_tile(z.segments, tile_of_block_reversed(z), height,
                                          [&](int s) { return segments[s].q_rows * group; });
  if (found.group < 0) return {};
  const AttentionSegment<T> s = segments[found.group];
  const std::int64_t left = s.q_rows * group - found.first;
  return {s,
          static_cast<int>(found.first),
          static_cast<int>(left < height ? left : height),
          group,
          z.heads,
          kv_head_of_block(z) * group};
}

/// How far back a row sees: its own position and the span - 1 before it.
__device__ __forceinline__ unsigned attention_span(const AttentionSizes& z) {
  return z.window > 0 && z.window < 0x7fffffff ? static_cast<unsigned>(z.window) : 0x7fffffffu;
}
__device__ __forceinline__ bool sees(int position, int key, unsigned span) {
  return static_cast<unsigned>(position - key) < span;  // a later key: a huge number
}
__device__ __forceinline__ int first_seen(int position, unsigned span) {
  return static_cast<unsigned>(position) >= span ? position - static_cast<int>(span) + 1 : 0;
}

/// Whether any row sees any key, and whether each row sees all, of rows at positions from `low` to
/// `high` and the keys from `begin` to `end` - 1.
struct Visibility {
  bool any, all;
};
__device__ __forceinline__ Visibility visibility(int low, int high, int begin, int end,
                                                 unsigned span) {
  return {high >= begin && first_seen(low, span) < end,
          low >= end - 1 && first_seen(high, span) <= begin};
}

/// The rows of a tile that belong to a lane of a warp: i-th 16, upper or lower half.
template <int kM>
struct LaneRows {
  int row;        // first of the warp
  int low, high;  // positions of the first and last that exist; high < low: none does
  int position[kM][2];

  template <class T>
  __device__ __forceinline__ LaneRows(const QueryRows<T>& rows, int first) : row(first) {
    const int left = rows.count - first, mine = left < 16 * kM ? left : 16 * kM;
    low = rows.position(first);
    high = mine > 0 ? rows.position(first + mine - 1) : -1;
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) position[i][half] = rows.position(at(i, half));
    }
  }
  __device__ __forceinline__ int at(int i, int half) const {
    return row + 16 * i + 8 * half + threadIdx.x % kWarp / 4;
  }
  /// Replaces what belongs to keys that its row does not see; keys are columns, from `key` on.
  template <int kN>
  __device__ __forceinline__ void mask(WarpTile<kM, kN>& s, int key, unsigned span,
                                       float replacement) const {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int j = 0; j < kN; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int column = key + 8 * j + 2 * (threadIdx.x % 4) + e % 2;
          if (!sees(position[i][e / 2], column, span)) s.v[i][j][e] = replacement;
        }
      }
    }
  }
};

/// Keys and values of a segment, of the block's kv head.
template <class T>
struct KeyRows {
  const T* k;
  const T* v;
  std::int64_t stride;
  int count;

  __device__ __forceinline__ KeyRows(const AttentionSegment<T>& s, const AttentionSizes& z)
      : k(s.k + std::int64_t{kv_head_of_block(z)} * z.head_dim),
        v(s.v + std::int64_t{kv_head_of_block(z)} * z.head_dim),
        stride(std::int64_t{z.kv_heads} * z.head_dim),
        count(static_cast<int>(s.kv_rows)) {}

  template <class Tile>
  __device__ __forceinline__ void start_keys(Tile& to, int first, int head_dim) const {
    to.start_copy(count - first, head_dim, [&](int r) { return k + (first + r) * stride; });
  }
  template <class Tile>
  __device__ __forceinline__ void start_values(Tile& to, int first, int head_dim) const {
    to.start_copy(count - first, head_dim, [&](int r) { return v + (first + r) * stride; });
  }
};

/// 2^x on the special function unit: relative error 2^-22, 0 below 2^-126.
__device__ __forceinline__ float exp2_approximate(float x) {
#ifdef __CUDACC__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

inline constexpr float kLog2E = 1.4426950408889634f;

__device__ __forceinline__ float attention_scale(const AttentionSizes& z) {
  return 1.0f / sqrtf(static_cast<float>(z.head_dim));
}

/// Launches with the shared memory of a Tiles, which may be more than a kernel has unasked.
template <class Tiles, class... P, class... A>
cudaError_t launch_attention(void (*kernel)(P...), std::int64_t blocks, cudaStream_t stream,
                             A... arguments) {
  const cudaError_t error = cudaFuncSetAttribute(
      kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(sizeof(Tiles)));
  if (error != cudaSuccess) return error;
  return ESP_LAUNCH(kernel, static_cast<unsigned>(blocks), kAttentionThreads, sizeof(Tiles), stream,
                    arguments...);
}

/// Launches for tiles as wide as the heads: launch.template operator()<64 or 128>().
template <class Launch>
cudaError_t for_head_width(int head_dim, const Launch& launch) {
  return head_dim <= 64 ? launch.template operator()<64>() : launch.template operator()<128>();
}

}  // namespace espalier::kernels
