// SPDX-License-Identifier: Apache-2.0
// A block per chunk of tokens. Each block sums the counts of all chunks itself (its redundant scan
// saves a launch), then one warp walks the chunk's slots in order, 32 at a time: lanes with the
// same expert find each other by a match, so a row is the expert's next one plus the rank among
// them.
#pragma once

#include <espalier/kernels/device.cuh>
#include <espalier/kernels/routing.hpp>

namespace espalier::kernels {

inline constexpr int kRoutingThreads = kMaxExperts;

/// Adds one to counts[expert] for each lane; lanes with an expert below 0 only take part.
__device__ __forceinline__ void count_expert(int* counts, int expert) {
  const unsigned same = __match_any_sync(kAllLanes, expert);
  const bool leads = __ffs(static_cast<int>(same)) - 1 == static_cast<int>(threadIdx.x % kWarp);
  if (leads && expert >= 0) atomicAdd(counts + expert, __popc(same));
}

__device__ __forceinline__ int expert_or_none(int expert, int e) {
  return expert >= 0 && expert < e ? expert : -1;
}

/// One past the last token of this block's chunk.
__device__ __forceinline__ std::int64_t end_of_chunk(std::int64_t n, std::int64_t chunk_tokens) {
  const std::int64_t end = (std::int64_t{blockIdx.x} + 1) * chunk_tokens;
  return end < n ? end : n;
}

template <class Index>
__global__ void __launch_bounds__(kRoutingThreads)
    count_routes_kernel(Index* counts, const Index* chosen, std::int64_t n, int e, int k,
                        std::int64_t chunk_tokens) {
  ESP_SHARED(int[kMaxExperts], count);
  for (int c = threadIdx.x; c < e; c += blockDim.x) count[c] = 0;
  __syncthreads();
  const std::int64_t begin = blockIdx.x * chunk_tokens * k;
  const std::int64_t end = end_of_chunk(n, chunk_tokens) * k;
  for (std::int64_t at = begin; at < end; at += blockDim.x) {
    const std::int64_t slot = at + threadIdx.x;
    count_expert(count, slot < end ? expert_or_none(chosen[slot], e) : -1);
  }
  __syncthreads();
  for (int c = threadIdx.x; c < e; c += blockDim.x) {
    counts[std::int64_t{blockIdx.x} * e + c] = count[c];
  }
}

// Leaves in next[c] the first row of this chunk for expert c, and in first[c] the expert's first
// row.
template <class Index>
__device__ void scan_counts(int* next, int* first, const Index* counts, int chunks, int e) {
  ESP_SHARED(int[kWarp], of_warp);
  const int t = threadIdx.x, warp = t / kWarp, lane = t % kWarp;
  next[t] = first[t] = 0;
  __syncthreads();
  // Thread t sums expert t % e over every (threads / e)-th chunk.
  const int slices = blockDim.x / e, slice = t / e, c = t % e;
  if (slice < slices) {
    int all = 0, before = 0;
    for (int b = slice; b < chunks; b += slices) {
      const int count = counts[std::int64_t{b} * e + c];
      all += count;
      if (b < static_cast<int>(blockIdx.x)) before += count;
    }
    atomicAdd(first + c, all);
    atomicAdd(next + c, before);
  }
  __syncthreads();
  // Exclusive sum over experts, one per thread.
  const int own = first[t];
  int sum = own;
#pragma unroll
  for (int lanes = 1; lanes < kWarp; lanes *= 2) {
    const int other = __shfl_up_sync(kAllLanes, sum, lanes);
    if (lane >= lanes) sum += other;
  }
  if (lane == kWarp - 1) of_warp[warp] = sum;
  __syncthreads();
  for (int w = 0; w < warp; ++w) sum += of_warp[w];
  first[t] = sum - own;
  next[t] += sum - own;
  __syncthreads();
}

template <class Index>
__global__ void __launch_bounds__(kRoutingThreads)
    make_routing_kernel(Index* offsets, Index* row_of_slot, Index* slot_of_row, const Index* chosen,
                        const Index* counts, std::int64_t n, int e, int k,
                        std::int64_t chunk_tokens) {
  ESP_SHARED(int[kRoutingThreads], next);
  ESP_SHARED(int[kRoutingThreads], first);
  scan_counts(next, first, counts, gridDim.x, e);
  if (blockIdx.x == 0) {
    for (int c = threadIdx.x; c < e; c += blockDim.x) offsets[c] = first[c];
  }
  const std::int64_t begin = blockIdx.x * chunk_tokens * k;
  const std::int64_t end = end_of_chunk(n, chunk_tokens) * k;
  if (threadIdx.x < kWarp) {
    const unsigned lower_lanes = (1u << threadIdx.x) - 1;
    for (std::int64_t at = begin; at < end; at += kWarp) {
      const std::int64_t slot = at + threadIdx.x;
      const int expert = slot < end ? expert_or_none(chosen[slot], e) : -1;
      const unsigned same = __match_any_sync(kAllLanes, expert);
      const int row = expert < 0 ? -1 : next[expert] + __popc(same & lower_lanes);
      __syncwarp();
      if (expert >= 0 && (same & lower_lanes) == 0) next[expert] += __popc(same);
      __syncwarp();
      if (slot < end) row_of_slot[slot] = row;
      if (row >= 0) slot_of_row[row] = static_cast<Index>(slot);
    }
    // The last chunk ends where the last expert does.
    if (blockIdx.x == gridDim.x - 1 && threadIdx.x == 0) offsets[e] = next[e - 1];
  }
}

template <class Index>
bool routing_is_possible(std::int64_t n, int e, int k) {
  return n >= 0 && e >= 1 && e <= kMaxExperts && k >= 1 && n * k <= 0x7fffffff;
}

template <class Index>
cudaError_t count_routes(Index* counts, const Index* chosen, std::int64_t n, int e, int k,
                         cudaStream_t stream) {
  if (!routing_is_possible<Index>(n, e, k)) return cudaErrorInvalidValue;
  const auto chunks = static_cast<unsigned>(route_chunks(n));
  return ESP_LAUNCH(count_routes_kernel<Index>, chunks, kRoutingThreads / 2, 0, stream, counts,
                    chosen, n, e, k, tokens_per_chunk(n));
}

template <class Index>
cudaError_t make_routing(Index* offsets, Index* row_of_slot, Index* slot_of_row,
                         const Index* chosen, const Index* counts, std::int64_t n, int e, int k,
                         cudaStream_t stream) {
  if (!routing_is_possible<Index>(n, e, k)) return cudaErrorInvalidValue;
  const auto chunks = static_cast<unsigned>(route_chunks(n));
  return ESP_LAUNCH(make_routing_kernel<Index>, chunks, kRoutingThreads, 0, stream, offsets,
                    row_of_slot, slot_of_row, chosen, counts, n, e, k, tokens_per_chunk(n));
}

}  // namespace espalier::kernels
