// SPDX-License-Identifier: Apache-2.0
// Backward without atomics, in three kernels that each own what they write. <dy, y> of every row
// and head first. Then dq: a block has 64 packed rows, a warp 16, and goes through the keys in
// blocks of
// 64. Then dk and dv: a block has 64 keys, a warp 16, and goes through the packed rows that see
// them, heads and rows of a group alike, 32 at a time; scores are computed transposed, so that the
// weights are operands where they lie. Two steps under way; 96 and 64 KB of shared memory at a
// head_dim of 128. The weights are recomputed in both: seven products where atomics need five.
#pragma once

#include <espalier/kernels/attention_mma_tiles.cuh>

namespace espalier::kernels {

inline constexpr int kBackwardRows = 64, kBackwardStep = 32;
inline constexpr int kDotLanes = 16;

template <class T>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_mma_dot_kernel(float* dot, const T* dy, const T* y, std::int64_t head_rows,
                             int head_dim) {
  const std::int64_t row =
      std::int64_t{blockIdx.x} * (kAttentionThreads / kDotLanes) + threadIdx.x / kDotLanes;
  const int c = threadIdx.x % kDotLanes;
  float sum = 0;
  if (row < head_rows && 8 * c < head_dim) {
    const auto a = load<T, 8>(dy + row * head_dim + 8 * c),
               b = load<T, 8>(y + row * head_dim + 8 * c);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += to_float(a.v[i]) * to_float(b.v[i]);
  }
  sum = warp_sum<kDotLanes>(sum);
  if (c == 0 && row < head_rows) dot[row] = sum;
}

template <class T, int kWidth>
struct QueryGradTiles {
  struct Stage {
    HeadTile<T, kAttentionKeys, kWidth> k, v;
  };
  HeadTile<T, kBackwardRows, kWidth> q, dy;  // q at the end dq
  Stage stages[2];
};

template <class T, int kWidth>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    attention_mma_dq_kernel(AttentionGradients<T> g, const AttentionSegment<T>* segments,
                            AttentionSizes z) {
  using Tiles = QueryGradTiles<T, kWidth>;
  ESP_DYN_SHARED(Tiles, tiles);
  const auto rows = query_rows_of_block(segments, z, kBackwardRows);
  if (rows.count == 0) return;
  const KeyRows<T> keys(rows.segment, z);
  const LaneRows<1> mine(rows, static_cast<int>(threadIdx.x / kWarp) * 16);
  const int p = z.head_dim;
  const unsigned span = attention_span(z);
  const float scale = attention_scale(z);
  const int begin = first_seen(rows.position(0), span) / kAttentionKeys * kAttentionKeys;
  const int end = rows.position(rows.count - 1) + 1;
  const auto start = [&](int key) {
    auto& stage = tiles->stages[key / kAttentionKeys % 2];
    if (key < end) {
      keys.start_keys(stage.k, key, p);
      keys.start_values(stage.v, key, p);
    }
    cp_async_commit();
  };
  tiles->q.start_copy(rows.count, p, [&](int r) { return g.q + rows.head_row(r) * p; });
  tiles->dy.start_copy(rows.count, p, [&](int r) { return g.dy + rows.head_row(r) * p; });
  start(begin);
  float lse[2], own[2];  // in units of log 2; <dy, y>
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const bool exists = mine.at(0, half) < rows.count;
    const std::int64_t at = rows.head_row(exists ? mine.at(0, half) : 0);
    lse[half] = g.log_sum[at] * kLog2E;
    own[half] = g.dot[at];
  }
  WarpTile<1, kWidth / 8> sum;
  for (int key = begin; key < end; key += kAttentionKeys) {
    cp_async_wait<0>();
    __syncthreads();  // this step has landed, and all have read the one before
    start(key + kAttentionKeys);
    const Visibility seen = visibility(mine.low, mine.high, key, key + kAttentionKeys, span);
    if (!seen.any) continue;
    auto& stage = tiles->stages[key / kAttentionKeys % 2];
    WarpTile<1, kAttentionKeys / 8> s, ds;
    multiply_transposed(s, tiles->q, mine.row, stage.k, 0);
    multiply_transposed(ds, tiles->dy, mine.row, stage.v, 0);
#pragma unroll
    for (int j = 0; j < kAttentionKeys / 8; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float weight = exp2_approximate(fmaf(s.v[0][j][e], scale * kLog2E, -lse[e / 2]));
        ds.v[0][j][e] = weight * (ds.v[0][j][e] - own[e / 2]);
      }
    }
    if (!seen.all) mine.mask(ds, key, span, 0.0f);
    multiply(sum, ds, stage.k);
  }
  round_into(tiles->q, mine.row, sum, [&](int, int) { return scale; });
  __syncwarp();
  write_rows(tiles->q, mine.row, 16, rows.count, p,
             [&](int r) { return g.dq + rows.head_row(r) * p; });
}

template <class T, int kWidth>
struct KeyGradTiles {
  struct Stage {
    HeadTile<T, kBackwardStep, kWidth> q, dy;
    float log_sum[kBackwardStep], dot[kBackwardStep];
  };
  HeadTile<T, kAttentionKeys, kWidth> k, v;  // at the end dk and dv
  Stage stages[2];

  /// Starts the copies of the rows.
  __device__ __forceinline__ void start(int stage_index, const QueryRows<T>& rows, int head_dim,
                                        const T* from_q, const T* from_dy, const float* from_lse,
                                        const float* from_dot) {
    Stage& to = stages[stage_index];
    to.q.start_copy(rows.count, head_dim,
                    [&](int r) { return from_q + rows.head_row(r) * head_dim; });
    to.dy.start_copy(rows.count, head_dim,
                     [&](int r) { return from_dy + rows.head_row(r) * head_dim; });
    const int r = threadIdx.x % kBackwardStep;
    const bool exists = r < rows.count;
    const std::int64_t at = rows.head_row(exists ? r : 0);
    if (threadIdx.x < kBackwardStep) {
      cp_async<4>(to.log_sum + r, from_lse + at, exists ? 4 : 0);
    } else if (threadIdx.x < 2 * kBackwardStep) {
      cp_async<4>(to.dot + r, from_dot + at, exists ? 4 : 0);
    }
  }
};

/// Zeroes what belongs to rows that do not exist or do not see its key: keys are rows of the tile,
/// this lane's `key` and the one 8 on, and packed rows its columns.
template <class T, int kN>
__device__ __forceinline__ void mask_transposed(WarpTile<1, kN>& weight, WarpTile<1, kN>& ds,
                                                const QueryRows<T>& rows, int key, unsigned span) {
#pragma unroll
  for (int j = 0; j < kN; ++j) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const int r = 8 * j + 2 * (threadIdx.x % 4) + e;
      const int position = r < rows.count ? rows.position(r) : -1;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (sees(position, key + 8 * half, span)) continue;
        weight.v[0][j][2 * half + e] = ds.v[0][j][2 * half + e] = 0;
      }
    }
  }
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    attention_mma_dkv_kernel(AttentionGradients<T> g, const AttentionSegment<T>* segments,
                             AttentionSizes z) {
  constexpr int kTiles = kBackwardStep / 8;
  using Tiles = KeyGradTiles<T, kWidth>;
  ESP_DYN_SHARED(Tiles, tiles);
  const int kv_head = kv_head_of_block(z), p = z.head_dim, group = z.heads / z.kv_heads;
  const GroupTile found = find_group_tile(z.segments, tile_of_block(z), kAttentionKeys,
                                          [&](int s) { return segments[s].q_rows; });
  if (found.group < 0) return;
  const AttentionSegment<T> segment = segments[found.group];
  const KeyRows<T> keys(segment, z);
  const int first = static_cast<int>(found.first), lane = threadIdx.x % kWarp;
  const int row = static_cast<int>(threadIdx.x / kWarp) * 16;  // of the tile, this warp's first key
  const int count = min(keys.count - first, kAttentionKeys);
  const unsigned span = attention_span(z);
  const float scale = attention_scale(z);
  // Packed rows that see one of the keys.
  const int last_key = first + count - 1;
  const int seen_until = span < static_cast<unsigned>(keys.count - last_key)
                             ? last_key + static_cast<int>(span)
                             : keys.count;
  const int end = seen_until * group;
  const auto rows_at = [&](int m) {
    return QueryRows<T>{segment, m, min(end - m, kBackwardStep), group, z.heads, kv_head * group};
  };
  const auto start = [&](int m) {
    if (m < end) tiles->start(m / kBackwardStep % 2, rows_at(m), p, g.q, g.dy, g.log_sum, g.dot);
    cp_async_commit();
  };
  keys.start_keys(tiles->k, first, p);
  keys.start_values(tiles->v, first, p);
  start(first * group);  // a multiple of the step
  WarpTile<1, kWidth / 8> sum_k, sum_v;
  for (int m = first * group; m < end; m += kBackwardStep) {
    cp_async_wait<0>();
    __syncthreads();  // this step has landed, and all have read the one before
    start(m + kBackwardStep);
    const QueryRows<T> rows = rows_at(m);
    const Visibility seen = visibility(rows.position(0), rows.position(rows.count - 1), first + row,
                                       first + row + 16, span);
    if (!seen.any) continue;
    auto& stage = tiles->stages[m / kBackwardStep % 2];
    WarpTile<1, kTiles> weight, ds;
    multiply_transposed(weight, tiles->k, row, stage.q, 0);
    multiply_transposed(ds, tiles->v, row, stage.dy, 0);
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const int r = 8 * j + 2 * (lane % 4);
      const auto lse = load<float, 2>(stage.log_sum + r), own = load<float, 2>(stage.dot + r);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        float& w = weight.v[0][j][e];
        w = exp2_approximate(fmaf(w, scale * kLog2E, -kLog2E * lse.v[e % 2]));
        ds.v[0][j][e] = w * (ds.v[0][j][e] - own.v[e % 2]);
      }
    }
    if (!seen.all || rows.count < kBackwardStep) {
      mask_transposed(weight, ds, rows, first + row + lane / 4, span);
    }
    multiply(sum_v, weight, stage.dy);
    multiply(sum_k, ds, stage.q);
  }
  round_into(tiles->k, row, sum_k, [&](int, int) { return scale; });
  round_into(tiles->v, row, sum_v, [&](int, int) { return 1.0f; });
  __syncwarp();
  const std::int64_t to = (segment.q_begin + first) * keys.stride + std::int64_t{kv_head} * p;
  write_rows(tiles->k, row, 16, count, p, [&](int r) { return g.dk + to + r * keys.stride; });
  write_rows(tiles->v, row, 16, count, p, [&](int r) { return g.dv + to + r * keys.stride; });
}

template <class T>
cudaError_t attention_mma_backward(const AttentionGradients<T>& g,
                                   const AttentionSegment<T>* segments, const AttentionSizes& z,
                                   cudaStream_t stream) {
  if (!attention_mma_fits(z, g.dq, g.dk, g.dv, g.dy, g.y, g.q)) return cudaErrorInvalidValue;
  if (z.rows == 0 || z.heads == 0) return cudaSuccess;
  const std::int64_t head_rows = z.rows * z.heads, packed = head_rows / z.kv_heads;
  cudaError_t error = ESP_LAUNCH(
      attention_mma_dot_kernel<T>,
      static_cast<unsigned>(ceil_div<std::int64_t>(head_rows, kAttentionThreads / kDotLanes)),
      kAttentionThreads, 0, stream, g.dot, g.dy, g.y, head_rows, z.head_dim);
  if (error != cudaSuccess) return error;
  return for_head_width(z.head_dim, [&]<int kWidth>() {
    error = launch_attention<QueryGradTiles<T, kWidth>>(
        attention_mma_dq_kernel<T, kWidth>,
        z.kv_heads * most_row_tiles(packed, z.segments, kBackwardRows), stream, g, segments, z);
    if (error != cudaSuccess) return error;
    return launch_attention<KeyGradTiles<T, kWidth>>(
        attention_mma_dkv_kernel<T, kWidth>,
        z.kv_heads * most_row_tiles(z.rows, z.segments, kAttentionKeys), stream, g, segments, z);
  });
}

}  // namespace espalier::kernels
