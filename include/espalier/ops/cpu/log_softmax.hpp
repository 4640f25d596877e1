// SPDX-License-Identifier: Apache-2.0
// Rows of a softmax: the exponential for arguments of at most 0, the largest element, and the
// log-sum-exp. Weights below 2^-100 of the largest (in f32) become 0: they change no sum, but
// products with them would be subnormal numbers, which are a hundred times slower.
#pragma once

#include <cstdint>
#include <limits>

#include <espalier/core/math.hpp>
#include <espalier/ops/cpu/simd.hpp>

namespace espalier::cpu {

/// log of the least weight: 2^-100 in f32, 2^-996 in double.
template <std::floating_point A>
inline constexpr A kLeastLogWeight = std::same_as<A, double> ? A(-690.3755918) : A(-69.31472);

/// exp(x) for x <= 0, within 2 ulp; 0 below the least weight; NaN stays.
template <std::floating_point A, int L>
ESP_SIMD_INLINE simd::Vec<A, L> softmax_weight(const simd::Vec<A, L>& x) {
  return exp_or_zero(x, kLeastLogWeight<A>);
}

/// Of z [n], n > 0. NaN elements may be dropped.
template <std::floating_point A>
struct Largest {
  A value;
  std::int64_t block;  // the first kSoftmaxBlock elements with it begin here
};
inline constexpr std::int64_t kSoftmaxBlock = 1024;

template <std::floating_point A, int W>
ESP_SIMD_INLINE Largest<A> largest(const A* z, std::int64_t n) {
  using V = simd::Native<A, W>;
  Largest<A> top{-std::numeric_limits<A>::infinity(), 0};
  for (std::int64_t begin = 0; begin < n; begin += kSoftmaxBlock) {
    const std::int64_t end = std::min(n, begin + kSoftmaxBlock);
    V m0(top.value), m1 = m0, m2 = m0, m3 = m0;
    std::int64_t i = begin;
    for (; i + 4 * V::kLanes <= end; i += 4 * V::kLanes) {
      m0 = max(V::load(z + i), m0);
      m1 = max(V::load(z + i + V::kLanes), m1);
      m2 = max(V::load(z + i + 2 * V::kLanes), m2);
      m3 = max(V::load(z + i + 3 * V::kLanes), m3);
    }
    for (; i + V::kLanes <= end; i += V::kLanes) m0 = max(V::load(z + i), m0);
    A value = max(max(max(m0, m1), max(m2, m3)));
    for (; i < end; ++i) value = z[i] > value ? z[i] : value;
    if (value > top.value) top = {value, begin};
  }
  return top;
}

/// Index of the largest, the lowest of equals; 0 where all are NaN.
template <std::floating_point A>
std::int64_t first_index(const A* z, std::int64_t n, const Largest<A>& top) {
  for (std::int64_t i = top.block; i < n; ++i) {
    if (z[i] == top.value) return i;
  }
  return 0;
}

/// log of the sum of exp(z - top), summed in blocks of A and then in double.
template <std::floating_point A, int W>
ESP_SIMD_INLINE double log_sum_exp(const A* z, std::int64_t n, A top) {
  using V = simd::Native<A, W>;
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += kSoftmaxBlock) {
    const std::int64_t end = std::min(n, begin + kSoftmaxBlock);
    V sum;
    std::int64_t i = begin;
    for (; i + V::kLanes <= end; i += V::kLanes) sum += softmax_weight(V::load(z + i) - V(top));
    total += static_cast<double>(simd::sum(sum));
    for (; i < end; ++i) total += math::exp(static_cast<double>(z[i]) - static_cast<double>(top));
  }
  return math::log(total);
}

/// p = exp(z - shift), rounded to G. p may lie where z does, for G no wider than A.
template <std::floating_point A, FloatElement G, int W>
ESP_SIMD_INLINE void softmax(const A* z, std::int64_t n, A shift, G* p) {
  static_assert(sizeof(G) <= sizeof(A));
  using V = simd::Native<A, W>;
  simd::for_each_vector<V>(0, n, [=](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
    softmax_weight(V::load(z + i, lanes) - V(shift)).store(p + i, lanes);
  });
}

}  // namespace espalier::cpu
