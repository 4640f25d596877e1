// SPDX-License-Identifier: Apache-2.0
// A group of 8, 16 or 32 lanes per token holds its logits in registers, neighbours in neighbouring
// lanes. K rounds of a butterfly maximum over keys that order by value, then by lower index; lane r
// keeps the winner of round r. A block does the tokens of one chunk of routing.hpp, so it can count
// them per expert as it goes. A softmax without bias, groups or epsilon, which needs no scores for
// its choice, has a kernel of its own. No float atomics; the same bits in every run.
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

/// Sum of exp(z - largest) over the token's logits; NaN where the largest is infinite. NaN logits
/// are left out. The terms, none above 1, are added as integers in units of 2^-53: the sum does not
/// depend on which lanes they lie in, or on how many zeros lie between.
template <int kLanes, int kPerLane>
__device__ __forceinline__ float sum_of_exp(const float (&z)[kPerLane], float largest) {
  unsigned long long sum = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    sum += static_cast<unsigned long long>(fmaxf(expf(z[i] - largest), 0.0f) * 0x1p53f);
  }
  return (largest - largest) + static_cast<float>(warp_sum<kLanes>(sum)) * 0x1p-53f;
}

template <int kLanes, int kPerLane>
__device__ __forceinline__ float largest_of(const float (&z)[kPerLane]) {
  float largest = -INFINITY;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) largest = fmaxf(largest, z[i]);
  return warp_max<kLanes>(largest);
}

/// Of the lanes of this token, is any true? All 32 lanes must come.
template <int kLanes>
__device__ __forceinline__ bool group_any(bool value) {
  const unsigned group = (kAllLanes >> (kWarp - kLanes)) << (threadIdx.x % kWarp / kLanes * kLanes);
  return (__ballot_sync(kAllLanes, value) & group) != 0;
}

__device__ __forceinline__ float sigmoid_of(float z) {
  return 1.0f / (1.0f + expf(-z));
}

/// p = the scores of a token's logits; a NaN makes all of a softmax NaN.
template <int kLanes, int kPerLane>
__device__ __forceinline__ void router_scores(float (&p)[kPerLane], const float (&z)[kPerLane],
                                              RouterRule::Score score, bool has_nan) {
  if (score == RouterRule::Score::sigmoid) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) p[i] = sigmoid_of(z[i]);
    return;
  }
  const float largest = largest_of<kLanes>(z);
  const float sum = sum_of_exp<kLanes>(z, largest), total = has_nan ? NAN : sum;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) p[i] = expf(z[i] - largest) / total;
}

/// What ranks the group of these choice values. What cannot be chosen counts in no sum, so a group
/// with one expert left has that expert's value.
__device__ __forceinline__ float group_score(const float* choice, int size,
                                             RouterRule::GroupScore score) {
  float first = -INFINITY, second = -INFINITY;
  for (int c = 0; c < size; ++c) {
    const float value = choice[c];
    if (value > first) {
      second = first;
      first = value;
    } else if (value > second) {
      second = value;
    }
  }
  return score == RouterRule::GroupScore::max || second == -INFINITY ? first : first + second;
}

/// Bit i: the expert of choice[i] lies in one of the best groups. `memory` [kLanes * kPerLane] is
/// shared memory of this token.
template <int kLanes, int kPerLane>
__device__ __forceinline__ unsigned in_best_groups(const float (&choice)[kPerLane], float* memory,
                                                   int lane, int e, const RouterRule& rule) {
  const int size = e / rule.groups;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) memory[lane + i * kLanes] = choice[i];
  __syncwarp();
  unsigned long long keys[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int g = lane + i * kLanes;
    keys[i] = g < rule.groups ? rank_key(group_score(memory + g * size, size, rule.group_score), g)
                              : 0ull;
  }
  __syncwarp();  // now memory[g] is 1 for a group that is kept
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) memory[lane + i * kLanes] = 0.0f;
  for (int round = 0; round < rule.top_groups; ++round) {
    unsigned long long best = 0;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) best = keys[i] > best ? keys[i] : best;
    best = group_max<kLanes>(best);
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      if (keys[i] == best) {
        keys[i] = 0;
        memory[lane + i * kLanes] = 1.0f;
      }
    }
  }
  __syncwarp();
  unsigned kept = 0;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int c = lane + i * kLanes;
    if (c < e && memory[c / size] != 0.0f) kept |= 1u << i;
  }
  __syncwarp();  // the next token may write
  return kept;
}

/// Replaces the logits z by what the weights are made of, and gives their ranks: the general way.
template <int kLanes, int kPerLane>
__device__ __forceinline__ void rank_by_rule(float (&z)[kPerLane],
                                             unsigned long long (&keys)[kPerLane],
                                             const float* bias, float* memory, bool active,
                                             bool has_nan, int lane, int e, const RouterRule& rule,
                                             bool of_kept) {
  const bool by_logits = rule.score == RouterRule::Score::softmax && bias == nullptr &&
                         (rule.groups == 1 || rule.group_score == RouterRule::GroupScore::max);
  float s[kPerLane], choice[kPerLane];
  router_scores<kLanes>(s, z, rule.score, has_nan);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int c = lane + i * kLanes;
    choice[i] = z[i];
    if (!by_logits && z[i] != -INFINITY) {
      choice[i] = s[i] + (bias != nullptr && c < e ? bias[c] : 0.0f);
    }
  }
  unsigned kept = ~0u;
  if (rule.groups > 1) kept = in_best_groups<kLanes>(choice, memory, lane, e, rule);
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const int c = lane + i * kLanes;
    keys[i] = active && c < e && (kept >> i & 1u) ? rank_key(choice[i], c) : 0ull;
    if (!of_kept) z[i] = s[i];
  }
}

/// What a lane has of its token's best experts: the one of round `lane`, -1 behind the last round,
/// with its z, and the z of the first round.
struct Winner {
  int expert = -1;
  float value = 0.0f, largest = 0.0f;
};

/// The `k` experts of the highest keys, one a round; their keys become 0.
template <int kLanes, int kPerLane>
__device__ __forceinline__ Winner take_best(unsigned long long (&keys)[kPerLane],
                                            const float (&z)[kPerLane], int k, int lane,
                                            bool active) {
  Winner won;
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
    if (round == 0) won.largest = best_value;
    if (lane == round && active) {
      won.expert = winner;
      won.value = best_value;
    }
  }
  return won;
}

/// kGeneral: any rule. Otherwise a softmax without bias and groups, and with no epsilon.
template <class T, int kLanes, int kPerLane, bool kGeneral>
__global__ void __launch_bounds__(kRouterThreads)
    router_top_k_forward_kernel(float* weights, std::int32_t* chosen, std::int32_t* counts,
                                const T* logits, const float* bias, std::int64_t n, int e,
                                const RouterRule rule, bool of_kept, std::int64_t chunk_tokens) {
  ESP_SHARED(int[kMaxExperts], count);
  const int lane = threadIdx.x % kLanes, k = rule.top_k;
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
      if constexpr (!kGeneral) keys[i] = active && c < e ? rank_key(z[i], c) : 0ull;
    }
    if constexpr (kGeneral) {
      ESP_SHARED(float[kRouterThreads * kPerLane], memory);
      has_nan = group_any<kLanes>(has_nan);
      rank_by_rule<kLanes>(z, keys, bias, memory + threadIdx.x / kLanes * (kLanes * kPerLane),
                           active, has_nan, lane, e, rule, of_kept);
    }
    const Winner won = take_best<kLanes>(keys, z, k, lane, active);
    float largest = won.largest;
    float weight, total;
    if constexpr (kGeneral) {
      // A bias may have ranked the largest logit lower.
      if (of_kept) largest = warp_max<kLanes>(lane < k ? won.value : -INFINITY);
      weight = lane < k ? (of_kept ? expf(won.value - largest) : won.value) : 0.0f;
      total = rule.renormalize ? warp_sum<kLanes>(weight) + rule.epsilon : 1.0f;
    } else {
      has_nan = group_any<kLanes>(has_nan);
      weight = lane < k ? expf(won.value - largest) : 0.0f;
      total = of_kept ? warp_sum<kLanes>(weight) : sum_of_exp<kLanes>(z, largest);
    }
    if (active && lane < k) {
      weights[token * k + lane] = has_nan ? NAN : weight / total * rule.scale;
      chosen[token * k + lane] = won.expert;
    }
    if (counts != nullptr) count_expert(count, won.expert);
  }
  if (counts == nullptr) return;
  __syncthreads();
  for (int c = threadIdx.x; c < e; c += blockDim.x) {
    counts[std::int64_t{blockIdx.x} * e + c] = count[c];
  }
}

// With dot = sum over kept of w dw, p a softmax over all, and D the sum of the kept p + epsilon:
//   softmax over the kept       dz = w (dw - dot / scale)
//   softmax, not renormalized   dz = [kept] w dw - p dot
//   softmax, with an epsilon    dz = [kept] w (dw - dot / scale) - p dot epsilon / D
//   sigmoid                     dz = w (dw - [renormalize] dot / scale) sigmoid(-z)
// and 0 where nothing is said of what is not kept.
template <class T, int kLanes, int kPerLane>
__global__ void __launch_bounds__(kRouterThreads)
    router_top_k_backward_kernel(T* dlogits, const float* dweights, const float* weights,
                                 const std::int32_t* chosen, const T* logits, std::int64_t n, int e,
                                 const RouterRule rule, bool of_kept) {
  const int lane = threadIdx.x % kLanes, k = rule.top_k;
  const std::int64_t token =
      std::int64_t{blockIdx.x} * (kRouterThreads / kLanes) + threadIdx.x / kLanes;
  const bool active = token < n;
  const bool keeps = active && lane < k;
  const float weight = keeps ? weights[token * k + lane] : 0.0f;
  const float product = keeps ? weight * dweights[token * k + lane] : 0.0f;
  const int expert = keeps ? chosen[token * k + lane] : -1;
  const float dot = warp_sum<kLanes>(product);
  float d[kPerLane] = {};
  float own = rule.renormalize ? product - weight * (dot / rule.scale) : product;
  if (!of_kept) {
    const float logit = keeps ? to_float(logits[token * e + expert]) : -INFINITY;
    if (rule.score == RouterRule::Score::sigmoid) {
      own *= sigmoid_of(-logit);
    } else {
      float z[kPerLane];
      load_logits<T, kLanes, kPerLane>(z, logits + token * e, active, lane, e);
      const float largest = largest_of<kLanes>(z);
      const float total = sum_of_exp<kLanes>(z, largest);
      float of_all = dot;
      if (rule.renormalize) {
        const float kept = warp_sum<kLanes>(keeps ? expf(logit - largest) / total : 0.0f);
        of_all *= rule.epsilon / (kept + rule.epsilon);
      }
#pragma unroll
      for (int i = 0; i < kPerLane; ++i) d[i] = -expf(z[i] - largest) / total * of_all;
    }
  }
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

/// launch.template operator()<kLanes, kPerLane>() with the smallest group that holds E logits.
template <class Launch>
cudaError_t with_group_for(int e, const Launch& launch) {
  if (e <= 8) return launch.template operator()<8, 1>();
  if (e <= 16) return launch.template operator()<16, 1>();
  if (e <= 32) return launch.template operator()<32, 1>();
  if (e <= 64) return launch.template operator()<32, 2>();
  if (e <= 128) return launch.template operator()<32, 4>();
  if (e <= 256) return launch.template operator()<32, 8>();
  return launch.template operator()<32, 16>();
}

inline bool router_can(std::int64_t n, int e, const RouterRule& rule) {
  return n >= 0 && e >= 1 && e <= kMaxExperts && rule.top_k >= 1 && rule.top_k <= kMaxTopK &&
         rule.groups >= 1 && e % rule.groups == 0 && rule.top_groups >= 1 &&
         rule.top_groups <= rule.groups && rule.top_k <= rule.top_groups * (e / rule.groups);
}

template <class T>
cudaError_t router_top_k_forward(float* weights, std::int32_t* chosen, std::int32_t* counts,
                                 const T* logits, const float* bias, std::int64_t n, int e,
                                 const RouterRule& rule, cudaStream_t stream) {
  if (!router_can(n, e, rule)) return cudaErrorInvalidValue;
  if (n == 0 && counts == nullptr) return cudaSuccess;
  const bool general = rule.score != RouterRule::Score::softmax || bias != nullptr ||
                       rule.groups > 1 || (rule.renormalize && rule.epsilon != 0);
  const auto run = [&]<bool kGeneral>() {
    return with_group_for(e, [&]<int kLanes, int kPerLane>() {
      return ESP_LAUNCH((router_top_k_forward_kernel<T, kLanes, kPerLane, kGeneral>),
                        static_cast<unsigned>(route_chunks(n)), kRouterThreads, 0, stream, weights,
                        chosen, counts, logits, bias, n, e, rule, is_softmax_of_kept(rule),
                        tokens_per_chunk(n));
    });
  };
  return general ? run.template operator()<true>() : run.template operator()<false>();
}

template <class T>
cudaError_t router_top_k_backward(T* dlogits, const float* dweights, const float* weights,
                                  const std::int32_t* chosen, const T* logits, std::int64_t n,
                                  int e, const RouterRule& rule, cudaStream_t stream) {
  if (!router_can(n, e, rule)) return cudaErrorInvalidValue;
  if (n == 0) return cudaSuccess;
  return with_group_for(e, [&]<int kLanes, int kPerLane>() {
    const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(n, kRouterThreads / kLanes));
    return ESP_LAUNCH((router_top_k_backward_kernel<T, kLanes, kPerLane>), blocks, kRouterThreads,
                      0, stream, dlogits, dweights, weights, chosen, logits, n, e, rule,
                      is_softmax_of_kept(rule));
  });
}

}  // namespace espalier::kernels
