// SPDX-License-Identifier: Apache-2.0
// Forward: a block has 128 packed rows of a kv head, a warp 32 of them, and goes through the keys
// in blocks of 64. Keys of the next block travel while this one's values are multiplied, and values
// while its scores are computed; 64 KB of shared memory for heads of 128, two blocks to a
// multiprocessor. Where segments have few rows (decoding), a block has 16 packed rows: its warps
// share the keys of a block for the scores and the columns of the result for the values, and two
// more blocks of keys are under way (104 KB); the sums are the same, in the same order.
#pragma once

#include <espalier/kernels/attention_mma_tiles.cuh>

namespace espalier::kernels {

inline constexpr int kFewStages = 3;

/// Softmax of rows whose scores come block by block.
template <int kM>
struct RunningSoftmax {
  float top[kM][2], total[kM][2];  // of this lane's rows; the total of this lane's columns alone

  __device__ __forceinline__ RunningSoftmax() {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
      top[i][0] = top[i][1] = -INFINITY;
      total[i][0] = total[i][1] = 0;
    }
  }

  /// Scores become weights relative to the largest score so far, and y follows it. A block that a
  /// row does not see changes no bit of it.
  template <int kN, int kC>
  __device__ __forceinline__ void weigh(WarpTile<kM, kN>& s, WarpTile<kM, kC>& y,
                                        float scale_log2) {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float above = top[i][half];
#pragma unroll
        for (int j = 0; j < kN; ++j) {
          above = fmaxf(above, fmaxf(s.v[i][j][2 * half], s.v[i][j][2 * half + 1]));
        }
        above = fmaxf(above, __shfl_xor_sync(kAllLanes, above, 1));
        above = fmaxf(above, __shfl_xor_sync(kAllLanes, above, 2));
        const float now = above == -INFINITY ? 0.0f : above;  // it has seen no key yet
        const float keep = exp2_approximate((top[i][half] - now) * scale_log2);
        const float base = now * scale_log2;
        float sum = 0;
#pragma unroll
        for (int j = 0; j < kN; ++j) {
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            s.v[i][j][e] = exp2_approximate(fmaf(s.v[i][j][e], scale_log2, -base));
            sum += s.v[i][j][e];
          }
        }
        total[i][half] = fmaf(total[i][half], keep, sum);
        top[i][half] = above;
#pragma unroll
        for (int c = 0; c < kC; ++c) {
          y.v[i][c][2 * half] *= keep;
          y.v[i][c][2 * half + 1] *= keep;
        }
      }
    }
  }

  /// Whole sums in every lane of a row.
  __device__ __forceinline__ void finish() {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) total[i][half] = warp_sum<4>(total[i][half]);
    }
  }

  template <class T>
  __device__ __forceinline__ void write_log_sum(float* log_sum, const QueryRows<T>& rows,
                                                const LaneRows<kM>& mine, float scale_log2) const {
    if (threadIdx.x % 4 != 0) return;
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int r = mine.at(i, half);
        if (r >= rows.count) continue;
        log_sum[rows.head_row(r)] = (top[i][half] * scale_log2 + log2f(total[i][half])) / kLog2E;
      }
    }
  }
};

template <class T, int kWidth>
struct ForwardTiles {
  HeadTile<T, kForwardRows, kWidth> q;  // at the end y
  HeadTile<T, kAttentionKeys, kWidth> k, v;
};

template <class T, int kWidth>
__global__ void __launch_bounds__(kAttentionThreads, 2)
    attention_mma_forward_kernel(T* y, float* log_sum, const T* q,
                                 const AttentionSegment<T>* segments, AttentionSizes z) {
  constexpr int kM = kForwardRows * kWarp / kAttentionThreads / 16;  // of a warp
  using Tiles = ForwardTiles<T, kWidth>;
  ESP_DYN_SHARED(Tiles, tiles);
  const auto rows = query_rows_of_block(segments, z, kForwardRows);
  if (rows.count == 0) return;
  const KeyRows<T> keys(rows.segment, z);
  const LaneRows<kM> mine(rows, static_cast<int>(threadIdx.x / kWarp) * 16 * kM);
  const int p = z.head_dim;
  const unsigned span = attention_span(z);
  const float scale_log2 = attention_scale(z) * kLog2E;
  const int begin = first_seen(rows.position(0), span) / kAttentionKeys * kAttentionKeys;
  const int end = rows.position(rows.count - 1) + 1;
  tiles->q.start_copy(rows.count, p, [&](int r) { return q + rows.head_row(r) * p; });
  keys.start_keys(tiles->k, begin, p);
  cp_async_commit();
  WarpTile<kM, kWidth / 8> sum;
  RunningSoftmax<kM> softmax;
  for (int key = begin; key < end; key += kAttentionKeys) {
    cp_async_wait<0>();
    __syncthreads();  // these keys have landed, and all have read the values before
    keys.start_values(tiles->v, key, p);
    cp_async_commit();
    const Visibility seen = visibility(mine.low, mine.high, key, key + kAttentionKeys, span);
    WarpTile<kM, kAttentionKeys / 8> s;
    if (seen.any) {
      multiply_transposed(s, tiles->q, mine.row, tiles->k, 0);
      if (!seen.all) mine.mask(s, key, span, -INFINITY);
      softmax.weigh(s, sum, scale_log2);
    }
    cp_async_wait<0>();
    __syncthreads();  // these values have landed, and all have read the keys
    if (key + kAttentionKeys < end) keys.start_keys(tiles->k, key + kAttentionKeys, p);
    cp_async_commit();
    if (seen.any) multiply(sum, s, tiles->v);
  }
  softmax.finish();
  if (log_sum != nullptr) softmax.write_log_sum(log_sum, rows, mine, scale_log2);
  round_into(tiles->q, mine.row, sum, [&](int i, int h) { return 1.0f / softmax.total[i][h]; });
  __syncwarp();
  write_rows(tiles->q, mine.row, 16 * kM, rows.count, p,
             [&](int r) { return y + rows.head_row(r) * p; });
}

template <class T, int kWidth>
struct FewRowsTiles {
  struct Stage {
    HeadTile<T, kAttentionKeys, kWidth> k, v;
  };
  HeadTile<T, kFewRows, kWidth> q;  // at the end y
  Stage stages[kFewStages];
  Vector<float, 4> scores[kAttentionKeys / 8][kWarp];  // as the lanes of one warp would hold them
};

template <class T, int kWidth>
__global__ void __launch_bounds__(kAttentionThreads)
    attention_mma_few_rows_kernel(T* y, float* log_sum, const T* q,
                                  const AttentionSegment<T>* segments, AttentionSizes z) {
  constexpr int kTiles = kAttentionKeys / 8, kWarps = kAttentionThreads / kWarp;
  constexpr int kColumns = kWidth / 8 / kWarps;  // times 8, of a warp
  using Tiles = FewRowsTiles<T, kWidth>;
  ESP_DYN_SHARED(Tiles, tiles);
  const auto rows = query_rows_of_block(segments, z, kFewRows);
  if (rows.count == 0) return;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const KeyRows<T> keys(rows.segment, z);
  const LaneRows<1> mine(rows, 0);
  const int p = z.head_dim;
  const unsigned span = attention_span(z);
  const float scale_log2 = attention_scale(z) * kLog2E;
  const int begin = first_seen(mine.low, span) / kAttentionKeys * kAttentionKeys;
  const auto start = [&](int step) {
    const int key = begin + step * kAttentionKeys;
    auto& stage = tiles->stages[step % kFewStages];
    if (key <= mine.high) {
      keys.start_keys(stage.k, key, p);
      keys.start_values(stage.v, key, p);
    }
    cp_async_commit();  // empty at the end, so that the count of groups stays the same
  };
  tiles->q.start_copy(rows.count, p, [&](int r) { return q + rows.head_row(r) * p; });
  for (int step = 0; step < kFewStages - 1; ++step) start(step);
  WarpTile<1, kColumns> sum;
  RunningSoftmax<1> softmax;
  for (int step = 0, key = begin; key <= mine.high; ++step, key += kAttentionKeys) {
    cp_async_wait<kFewStages - 2>();
    __syncthreads();  // this step has landed, and all have read the step before it
    start(step + kFewStages - 1);
    auto& stage = tiles->stages[step % kFewStages];
    WarpTile<1, kTiles / kWarps> part;
    multiply_transposed(part, tiles->q, 0, stage.k, warp * (kAttentionKeys / kWarps));
#pragma unroll
    for (int j = 0; j < kTiles / kWarps; ++j) {
      const auto& own = part.v[0][j];
      tiles->scores[warp * (kTiles / kWarps) + j][lane] = {own[0], own[1], own[2], own[3]};
    }
    __syncthreads();
    WarpTile<1, kTiles> s;
#pragma unroll
    for (int j = 0; j < kTiles; ++j) {
      const Vector<float, 4> of = tiles->scores[j][lane];
#pragma unroll
      for (int e = 0; e < 4; ++e) s.v[0][j][e] = of.v[e];
    }
    const Visibility seen = visibility(mine.low, mine.high, key, key + kAttentionKeys, span);
    if (!seen.all) mine.mask(s, key, span, -INFINITY);
    softmax.weigh(s, sum, scale_log2);
    multiply(sum, s, stage.v, warp * kColumns);
  }
  softmax.finish();
  if (log_sum != nullptr && warp == 0) softmax.write_log_sum(log_sum, rows, mine, scale_log2);
  round_into(
      tiles->q, 0, sum, [&](int i, int h) { return 1.0f / softmax.total[i][h]; }, warp * kColumns);
  __syncthreads();
  write_rows(tiles->q, warp * (kFewRows / kWarps), kFewRows / kWarps, rows.count, p,
             [&](int r) { return y + rows.head_row(r) * p; });
}

template <int kRows, class T>
cudaError_t attention_mma_forward_tiles(T* y, float* log_sum, const T* q,
                                        const AttentionSegment<T>* segments,
                                        const AttentionSizes& z, cudaStream_t stream) {
  if (!attention_mma_fits(z, y, q)) return cudaErrorInvalidValue;
  if (z.rows == 0 || z.heads == 0) return cudaSuccess;
  const std::int64_t packed = z.rows * (z.heads / z.kv_heads);
  const std::int64_t blocks = z.kv_heads * most_row_tiles(packed, z.segments, kRows);
  return for_head_width(z.head_dim, [&]<int kWidth>() {
    if constexpr (kRows == kFewRows) {
      return launch_attention<FewRowsTiles<T, kWidth>>(attention_mma_few_rows_kernel<T, kWidth>,
                                                       blocks, stream, y, log_sum, q, segments, z);
    } else {
      return launch_attention<ForwardTiles<T, kWidth>>(attention_mma_forward_kernel<T, kWidth>,
                                                       blocks, stream, y, log_sum, q, segments, z);
    }
  });
}

template <class T>
cudaError_t attention_mma_forward(T* y, float* log_sum, const T* q,
                                  const AttentionSegment<T>* segments, const AttentionSizes& z,
                                  cudaStream_t stream) {
  const bool few = z.kv_heads > 0 && z.rows * (z.heads / z.kv_heads) <= kFewRows * z.segments;
  return few ? attention_mma_forward_tiles<kFewRows>(y, log_sum, q, segments, z, stream)
             : attention_mma_forward_tiles<kForwardRows>(y, log_sum, q, segments, z, stream);
}

}  // namespace espalier::kernels
