// SPDX-License-Identifier: Apache-2.0
// The softmax of one row of any float type, p_c = exp(z_c - max) / sum, and products with it.
// Computed in acc_t, summed in blocks and then in double. A NaN, a plus infinity or a row of minus
// infinities make all of p NaN. Single minus infinities, and elements below 2^-100 of the largest
// (see log_softmax.hpp), give 0.
#pragma once

#include <espalier/core/math.hpp>
#include <espalier/ops/cpu/log_softmax.hpp>
#include <espalier/ops/cpu/map.hpp>

namespace espalier::cpu {

/// sum exp(z_c) = total · exp(largest).
struct ExpSum {
  double largest, total;

  double log() const { return largest + math::log(total); }
};

/// p [n] from z [n], n > 0.
template <int W, FloatElement T>
ESP_SIMD_INLINE ExpSum softmax_row(const T* z, std::int64_t n, acc_t<T>* p) {
  using A = acc_t<T>;
  using V = simd::Native<T, W>;
  map_row<W>(n, Identity{}, p, z);
  const A top = largest<A, W>(p, n).value;
  softmax<A, A, W>(p, n, top, p);
  double total = 0;
  for (std::int64_t begin = 0; begin < n; begin += kSoftmaxBlock) {
    const A* block = p + begin;
    total += simd::sum_over<V>(std::min(n - begin, kSoftmaxBlock),
                               [=](std::int64_t i, auto lanes, const V& sum)
                                   ESP_SIMD_LAMBDA { return sum + V::load(block + i, lanes); });
  }
  const V factor(static_cast<A>(1 / total));
  map_row<W>(
      n, [=](const V& v) ESP_SIMD_LAMBDA { return v * factor; }, p, p);
  return {static_cast<double>(top), total};
}

/// sum over c of a_c · b_c, in acc_t of the wider.
template <int W, class A, class B>
ESP_SIMD_INLINE auto dot_row(const A* a, const B* b, std::int64_t n) {
  using V = simd::Native<detail::widest_acc_t<A, B>, W>;
  return simd::sum_over<V>(n, [=](std::int64_t i, auto lanes, const V& sum) ESP_SIMD_LAMBDA {
    return fma(V::load(a + i, lanes), V::load(b + i, lanes), sum);
  });
}

}  // namespace espalier::cpu
