// SPDX-License-Identifier: Apache-2.0
// A group of 8, 16 or 32 lanes per token holds its logits in registers, neighbours in neighbouring
// lanes. K rounds of a butterfly maximum over keys that order by value, then by lower index; lane r
// keeps the winner of round r. A block does the tokens of one chunk of routing.hpp, so it can count
// them per expert as it goes. No float atomics; the same bits in every run.
#pragma once

#include <espalier/kernels/router_top_k.hpp>
#include <espalier/kernels/routing.cuh>

namespace espalier::kernels {

inline constexpr int kRouterThreads = 256;

/// Larger for larger values, then for smaller indices; 0 is below all of them.
__device__ __forceinline__ unsigned long long rank_key(float value, int index) {
  unsigned u = __float_as_uint(value == 0.0f ? 0.0f : value);  // -0 and 0 are a tie
  u = isnan(value) ? 0u : u ^ (u >> 31 ? 0xffffffffu : 0x80000000u);
  return static_cast<unsigned long long>(u) << 32 | (0xffffffffu - static_cast<unsigned>(index));
}
__device__ __forceinline__ int index_of_key(unsigned long long key) {
  return static_cast<int>(0xffffffffu - static_cast<unsigned>(key));
}

template <int kLanes>
__device__ __forceinline__ unsigned long long group_max(unsigned long long key) {
#pragma unroll
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
    const unsigned long long other = __shfl_xor_sync(kAllLanes, key, lanes);
    key = other > key ? other : key;
  }
  return key;
}

/// Lane `lane` of a token's group holds logits lane, lane + kLanes, ...; -inf where there is none.
template <class T, int kLanes, int kPerLane>
__device__ __forceinline__ void load_logits(float (&z)[kPerLane], const T* logits, bool active,
                                            int lane, int e) {
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int c = lane + i * kLanes;
    z[i] = active && c < e ? to_float(logits[c]) : -INFINITY;
  }
}

/// Sum of exp(z - largest) over the token's logits.
template <int kLanes, int kPerLane>
__device__ __forceinline__ float sum_of_exp(const float (&z)[kPerLane], float largest) {
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) sum += expf(z[i] - largest);
  return warp_sum<kLanes>(sum);
}

template <class T, int kLanes, int kPerLane>
__global__ void __launch_bounds__(kRouterThreads)
    router_top_k_forward_kernel(float* weights, std::int32_t* chosen, std::int32_t* counts,
                                const T* logits, std::int64_t n, int e, int k, SoftmaxOrder order,
                                std::int64_t chunk_tokens) {
  ESP_SHARED(int[kMaxExperts], count);
  const int lane = threadIdx.x % kLanes;
  for (int c = threadIdx.x; c < e; c += blockDim.x) count[c] = 0;
  __syncthreads();
  const std::int64_t begin = blockIdx.x * chunk_tokens, end = end_of_chunk(n, chunk_tokens);
  for (std::int64_t at = begin; at < end; at += kRouterThreads / kLanes) {
    const std::int64_t token = at + threadIdx.x / kLanes;
    const bool active = token < end;
    float z[kPerLane];
    load_logits<T, kLanes, kPerLane>(z, logits + token * e, active, lane, e);
    unsigned long long keys[kPerLane];
    bool has_nan = false;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int c = lane + i * kLanes;
      has_nan |= isnan(z[i]) != 0;
      keys[i] = active && c < e ? rank_key(z[i], c) : 0ull;
    }
    int expert = -1;     // the winner of round `lane`
    float value = 0.0f;  // its logit
    float largest = 0.0f;
    for (int round = 0; round < k; ++round) {
      unsigned long long best = 0;
      float best_value = 0.0f;
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        if (keys[i] > best) {
          best = keys[i];
          best_value = z[i];
        }
      }
      best = group_max<kLanes>(best);
      const int winner = index_of_key(best);
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) {
        if (keys[i] == best) keys[i] = 0;
      }
      best_value = __shfl_sync(kAllLanes, best_value, winner % kLanes, kLanes);
      if (round == 0) largest = best_value;
      if (lane == round && active) {
        expert = winner;
        value = best_value;
      }
    }
    const unsigned nans = __ballot_sync(kAllLanes, has_nan);
    const unsigned group = (kAllLanes >> (kWarp - kLanes))
                           << (threadIdx.x % kWarp / kLanes * kLanes);
    const float weight = lane < k ? expf(value - largest) : 0.0f;
    const float total = order == SoftmaxOrder::top_k_softmax
                            ? warp_sum<kLanes>(weight)
                            : sum_of_exp<kLanes, kPerLane>(z, largest);
    if (active && lane < k) {
      weights[token * k + lane] = nans & group ? NAN : weight / total;
      chosen[token * k + lane] = expert;
    }
    if (counts != nullptr) count_expert(count, expert);
  }
  if (counts == nullptr) return;
  __syncthreads();
  for (int c = threadIdx.x; c < e; c += blockDim.x) {
    counts[std::int64_t{blockIdx.x} * e + c] = count[c];
  }
}

// d logit c = [c is kept] w_c dw_c - p_c * sum over kept of w dw, p the softmax that made w: over
// the kept logits (so 0 for the others) or over all.
template <class T, int kLanes, int kPerLane>
__global__ void __launch_bounds__(kRouterThreads)
    router_top_k_backward_kernel(T* dlogits, const float* dweights, const float* weights,
                                 const std::int32_t* chosen, const T* logits, std::int64_t n, int e,
                                 int k, SoftmaxOrder order) {
  const int lane = threadIdx.x % kLanes;
  const std::int64_t token =
      std::int64_t{blockIdx.x} * (kRouterThreads / kLanes) + threadIdx.x / kLanes;
  const bool active = token < n;
  const bool keeps = active && lane < k;
  const float weight = keeps ? weights[token * k + lane] : 0.0f;
  const float product = keeps ? weight * dweights[token * k + lane] : 0.0f;
  const int expert = keeps ? chosen[token * k + lane] : -1;
  const float dot = warp_sum<kLanes>(product);
  float d[kPerLane] = {};
  if (order == SoftmaxOrder::softmax_top_k) {
    float z[kPerLane];
    load_logits<T, kLanes, kPerLane>(z, logits + token * e, active, lane, e);
    float largest = -INFINITY;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) largest = fmaxf(largest, z[i]);
    largest = warp_max<kLanes>(largest);
    const float total = sum_of_exp<kLanes, kPerLane>(z, largest);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) d[i] = -expf(z[i] - largest) / total * dot;
  }
  const float own = order == SoftmaxOrder::softmax_top_k ? product : product - weight * dot;
  for (int j = 0; j < k; ++j) {
    const int kept = __shfl_sync(kAllLanes, expert, j, kLanes);
    const float gradient = __shfl_sync(kAllLanes, own, j, kLanes);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (lane + i * kLanes == kept) d[i] += gradient;
    }
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int c = lane + i * kLanes;
    if (active && c < e) dlogits[token * e + c] = from_float<T>(d[i]);
  }
}

/// Calls f.run<kLanes, kPerLane>() with the smallest group that holds E logits.
template <class F>
cudaError_t with_group_for(int e, F f) {
  if (e <= 8) return f.template run<8, 1>();
  if (e <= 16) return f.template run<16, 1>();
  if (e <= 32) return f.template run<32, 1>();
  if (e <= 64) return f.template run<32, 2>();
  if (e <= 128) return f.template run<32, 4>();
  if (e <= 256) return f.template run<32, 8>();
  return f.template run<32, 16>();
}

template <class T>
struct RouterForward {
  float* weights;
  std::int32_t *chosen, *counts;
  const T* logits;
  std::int64_t n;
  int e, k;
  SoftmaxOrder order;
  cudaStream_t stream;

  template <int kLanes, int kPerLane>
  cudaError_t run() const {
    return ESP_LAUNCH((router_top_k_forward_kernel<T, kLanes, kPerLane>),
                      static_cast<unsigned>(route_chunks(n)), kRouterThreads, 0, stream, weights,
                      chosen, counts, logits, n, e, k, order, tokens_per_chunk(n));
  }
};

template <class T>
struct RouterBackward {
  T* dlogits;
  const float *dweights, *weights;
  const std::int32_t* chosen;
  const T* logits;
  std::int64_t n;
  int e, k;
  SoftmaxOrder order;
  cudaStream_t stream;

  template <int kLanes, int kPerLane>
  cudaError_t run() const {
    const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(n, kRouterThreads / kLanes));
    return ESP_LAUNCH((router_top_k_backward_kernel<T, kLanes, kPerLane>), blocks, kRouterThreads,
                      0, stream, dlogits, dweights, weights, chosen, logits, n, e, k, order);
  }
};

inline bool router_can(std::int64_t n, int e, int k) {
  return n >= 0 && e >= 1 && e <= kMaxExperts && k >= 1 && k <= e && k <= kMaxTopK;
}

template <class T>
cudaError_t router_top_k_forward(float* weights, std::int32_t* chosen, std::int32_t* counts,
                                 const T* logits, std::int64_t n, int e, int k, SoftmaxOrder order,
                                 cudaStream_t stream) {
  if (!router_can(n, e, k)) return cudaErrorInvalidValue;
  if (n == 0 && counts == nullptr) return cudaSuccess;
  return with_group_for(e,
                        RouterForward<T>{weights, chosen, counts, logits, n, e, k, order, stream});
}

template <class T>
cudaError_t router_top_k_backward(T* dlogits, const float* dweights, const float* weights,
                                  const std::int32_t* chosen, const T* logits, std::int64_t n,
                                  int e, int k, SoftmaxOrder order, cudaStream_t stream) {
  if (!router_can(n, e, k)) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  return with_group_for(
      e, RouterBackward<T>{dlogits, dweights, weights, chosen, logits, n, e, k, order, stream});
}

}  // namespace espalier::kernels
