// SPDX-License-Identifier: Apache-2.0
// The softmax of one row, of any float type, computed in acc_t.
#pragma once

#include <espalier/ops/cpu/log_softmax.hpp>
#include <espalier/ops/cpu/map.hpp>

namespace espalier::cpu {

/// What the exponentials of a row were divided by: log() of them all is largest + log(sum).
template <std::floating_point A>
struct RowSum {
  A largest, sum;
  double log() const { return static_cast<double>(largest) + std::log(static_cast<double>(sum)); }
};

/// p = softmax(z), n > 0. A NaN makes the whole row NaN.
template <int W, FloatElement T>
ESP_SIMD_INLINE RowSum<acc_t<T>> softmax_row(const T* z, std::int64_t n, acc_t<T>* p) {
  using V = simd::Native<T, W>;
  simd::for_each_vector<V>(0, n, [=](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
    V::load(z + i, lanes).store(p + i, lanes);
  });
  const acc_t<T> top = largest<acc_t<T>, W>(p, n).value;
  softmax<acc_t<T>, acc_t<T>, W>(p, n, top, p);
  const acc_t<T> sum =
      simd::sum_over<V>(n, [=](std::int64_t i, auto lanes, const V& s)
                               ESP_SIMD_LAMBDA { return s + V::load(p + i, lanes); });
  simd::for_each_vector<V>(0, n, [=](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
    (V::load(p + i, lanes) / V(sum)).store(p + i, lanes);
  });
  return {top, sum};
}

/// <a, b>
template <int W, std::floating_point A, FloatElement T>
ESP_SIMD_INLINE A dot_row(const A* a, const T* b, std::int64_t n) {
  using V = simd::Native<A, W>;
  return simd::sum_over<V>(n, [=](std::int64_t i, auto lanes, const V& s) ESP_SIMD_LAMBDA {
    return fma(V::load(a + i, lanes), V::load(b + i, lanes), s);
  });
}

}  // namespace espalier::cpu
