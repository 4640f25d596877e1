// SPDX-License-Identifier: Apache-2.0
// A warp per row and head; lane l holds the elements l, l + 32, ... of a head. Keys come one after
// another from the caches: many warps read the same ones.
#pragma once

#include <espalier/kernels/attention_plain.hpp>
#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

inline constexpr int kAttentionRows = 8;  // warps of a block

/// Elements of one head that a lane holds.
template <int kPer>
struct HeadSlice {
  float v[kPer];
};

template <int kPer, class T>
__device__ __forceinline__ HeadSlice<kPer> load_head(const T* p, int head_dim) {
  HeadSlice<kPer> s;
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    const int c = threadIdx.x % kWarp + kWarp * i;
    s.v[i] = c < head_dim ? to_float(p[c]) : 0.0f;
  }
  return s;
}
template <int kPer, class T>
__device__ __forceinline__ void store_head(T* p, const HeadSlice<kPer>& s, float factor,
                                           int head_dim) {
#pragma unroll
  for (int i = 0; i < kPer; ++i) {
    const int c = threadIdx.x % kWarp + kWarp * i;
    if (c < head_dim) p[c] = from_float<T>(s.v[i] * factor);
  }
}
template <int kPer>
__device__ __forceinline__ float dot(const HeadSlice<kPer>& a, const HeadSlice<kPer>& b) {
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kPer; ++i) sum += a.v[i] * b.v[i];
  return warp_sum(sum);
}
template <int kPer>
__device__ __forceinline__ void add_scaled(HeadSlice<kPer>& to, float factor,
                                           const HeadSlice<kPer>& x) {
#pragma unroll
  for (int i = 0; i < kPer; ++i) to.v[i] += factor * x.v[i];
}

/// The segment that holds a row of q.
template <class T>
__device__ __forceinline__ AttentionSegment<T> segment_of(const AttentionSegment<T>* segments,
                                                          int count, std::int64_t row) {
  int low = 0, high = count - 1;
  while (low < high) {  // the last that begins at or before the row and is not empty
    const int middle = (low + high + 1) / 2;
    if (segments[middle].q_begin <= row) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  return segments[low];
}

/// body(row, its segment) for the row of q, or of keys, that the warp has, if there is one.
template <class T, class Body>
__device__ __forceinline__ void for_row_of_warp(const AttentionSegment<T>* segments,
                                                const AttentionSizes& z, const Body& body) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kAttentionRows + threadIdx.x / kWarp;
  if (row < z.rows) body(row, segment_of(segments, z.segments, row));
}

/// First key that the row at `position` sees.
__device__ __forceinline__ std::int64_t first_key(std::int64_t position, std::int64_t window) {
  return window > 0 && position >= window ? position - window + 1 : 0;
}

template <int kPer, class T>
__global__ void __launch_bounds__(kAttentionRows* kWarp)
    attention_plain_forward_kernel(T* y, float* log_sum, const T* q,
                                   const AttentionSegment<T>* segments, AttentionSizes z) {
  for_row_of_warp(segments, z, [&](std::int64_t row, const AttentionSegment<T>& s) {
    const int head = blockIdx.y, kv_head = head / (z.heads / z.kv_heads), p = z.head_dim;
    const std::int64_t position = s.kv_rows - s.q_rows + row - s.q_begin;
    const std::int64_t at = (row * z.heads + head) * p;
    const float scale = 1.0f / sqrtf(static_cast<float>(p));
    const auto query = load_head<kPer>(q + at, p);
    HeadSlice<kPer> sum = {};
    float top = -INFINITY, total = 0;
    for (std::int64_t j = first_key(position, z.window); j <= position; ++j) {
      const std::int64_t key_at = (j * z.kv_heads + kv_head) * p;
      const float score = scale * dot(query, load_head<kPer>(s.k + key_at, p));
      const float above = score > top || score != score ? score : top;  // NaN goes through
      const float keep = top == above ? 1.0f : expf(top - above), weight = expf(score - above);
#pragma unroll
      for (int i = 0; i < kPer; ++i) sum.v[i] *= keep;
      add_scaled(sum, weight, load_head<kPer>(s.v + key_at, p));
      total = total * keep + weight;
      top = above;
    }
    store_head(y + at, sum, 1.0f / total, p);
    if (log_sum != nullptr && threadIdx.x % kWarp == 0) {
      log_sum[row * z.heads + head] = top + logf(total);
    }
  });
}

// dq, and the dot products that the gradients of the scores need.
template <int kPer, class T>
__global__ void __launch_bounds__(kAttentionRows* kWarp)
    attention_plain_dq_kernel(AttentionGradients<T> g, const AttentionSegment<T>* segments,
                              AttentionSizes z) {
  for_row_of_warp(segments, z, [&](std::int64_t row, const AttentionSegment<T>& s) {
    const int head = blockIdx.y, kv_head = head / (z.heads / z.kv_heads), p = z.head_dim;
    const std::int64_t position = row - s.q_begin, at = (row * z.heads + head) * p;
    const float scale = 1.0f / sqrtf(static_cast<float>(p));
    const auto query = load_head<kPer>(g.q + at, p), up = load_head<kPer>(g.dy + at, p);
    const float own = dot(up, load_head<kPer>(g.y + at, p)), lse = g.log_sum[row * z.heads + head];
    HeadSlice<kPer> sum = {};
    for (std::int64_t j = first_key(position, z.window); j <= position; ++j) {
      const std::int64_t key_at = (j * z.kv_heads + kv_head) * p;
      const auto key = load_head<kPer>(s.k + key_at, p);
      const float weight = expf(scale * dot(query, key) - lse);
      const float ds = weight * (dot(up, load_head<kPer>(s.v + key_at, p)) - own);
      add_scaled(sum, ds, key);
    }
    store_head(g.dq + at, sum, scale, p);
    if (threadIdx.x % kWarp == 0) g.dot[row * z.heads + head] = own;
  });
}

// A warp per key and kv head: the query heads of the group and the rows that see the key, in order.
template <int kPer, class T>
__global__ void __launch_bounds__(kAttentionRows* kWarp)
    attention_plain_dkv_kernel(AttentionGradients<T> g, const AttentionSegment<T>* segments,
                               AttentionSizes z) {
  for_row_of_warp(segments, z, [&](std::int64_t row, const AttentionSegment<T>& s) {
    const int kv_head = blockIdx.y, group = z.heads / z.kv_heads, p = z.head_dim;
    const std::int64_t position = row - s.q_begin;
    const std::int64_t key_at = (position * z.kv_heads + kv_head) * p;
    const float scale = 1.0f / sqrtf(static_cast<float>(p));
    const auto key = load_head<kPer>(s.k + key_at, p), value = load_head<kPer>(s.v + key_at, p);
    HeadSlice<kPer> dkey = {}, dvalue = {};
    const std::int64_t last =
        z.window > 0 && position + z.window < s.q_rows ? position + z.window : s.q_rows;
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      for (std::int64_t i = position; i < last; ++i) {
        const std::int64_t of = (s.q_begin + i) * z.heads + head;
        const auto query = load_head<kPer>(g.q + of * p, p), up = load_head<kPer>(g.dy + of * p, p);
        const float weight = expf(scale * dot(query, key) - g.log_sum[of]);
        add_scaled(dvalue, weight, up);
        add_scaled(dkey, weight * (dot(up, value) - g.dot[of]), query);
      }
    }
    const std::int64_t to = (row * z.kv_heads + kv_head) * p;
    store_head(g.dk + to, dkey, scale, p);
    store_head(g.dv + to, dvalue, 1.0f, p);
  });
}

/// Calls launch.template operator()<elements a lane holds>().
template <class Launch>
cudaError_t for_head_dim(int head_dim, const Launch& launch) {
  if (head_dim <= 0 || head_dim > kMaxHeadDim) return cudaErrorInvalidValue;
  if (head_dim <= kWarp) return launch.template operator()<1>();
  if (head_dim <= 2 * kWarp) return launch.template operator()<2>();
  if (head_dim <= 4 * kWarp) return launch.template operator()<4>();
  return launch.template operator()<8>();
}

template <class T>
cudaError_t attention_plain_forward(T* y, float* log_sum, const T* q,
                                    const AttentionSegment<T>* segments,
                                    const AttentionSizes& sizes, cudaStream_t stream) {
  if (sizes.rows == 0 || sizes.heads == 0) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(ceil_div<std::int64_t>(sizes.rows, kAttentionRows)),
                  static_cast<unsigned>(sizes.heads));
  return for_head_dim(sizes.head_dim, [&]<int kPer>() {
    return ESP_LAUNCH((attention_plain_forward_kernel<kPer, T>), grid, kAttentionRows * kWarp, 0,
                      stream, y, log_sum, q, segments, sizes);
  });
}

template <class T>
cudaError_t attention_plain_backward(const AttentionGradients<T>& g,
                                     const AttentionSegment<T>* segments,
                                     const AttentionSizes& sizes, cudaStream_t stream) {
  if (sizes.rows == 0 || sizes.heads == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(sizes.rows, kAttentionRows));
  return for_head_dim(sizes.head_dim, [&]<int kPer>() {
    const cudaError_t error = ESP_LAUNCH((attention_plain_dq_kernel<kPer, T>),
                                         dim3(blocks, static_cast<unsigned>(sizes.heads)),
                                         kAttentionRows * kWarp, 0, stream, g, segments, sizes);
    if (error != cudaSuccess) return error;
    return ESP_LAUNCH((attention_plain_dkv_kernel<kPer, T>),
                      dim3(blocks, static_cast<unsigned>(sizes.kv_heads)), kAttentionRows * kWarp,
                      0, stream, g, segments, sizes);
  });
}

}  // namespace espalier::kernels
