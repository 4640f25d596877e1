// SPDX-License-Identifier: Apache-2.0
// Elementwise loops: y[i] = f(x[i]) or f(a[i], b[i]), with f from vectors to a vector. The element
// types may differ: values are widened when they are read, computed in float, or in double where
// one of them is, and rounded once when they are written. y may be one of the inputs.
#pragma once

#include <cstdint>
#include <type_traits>

#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/simd.hpp>

namespace espalier::cpu {

namespace detail {
template <class... Ts>
using widest_acc_t = std::conditional_t<(std::same_as<acc_t<Ts>, double> || ...), double, float>;
}  // namespace detail

inline constexpr std::int64_t kMapGrain = 1 << 15;

/// y = f(x) on one thread, inside a dispatch over W floats.
template <int W, class F, class Y, class X>
ESP_SIMD_INLINE void map_row(std::int64_t n, const F& f, Y* y, const X* x) {
  using V = simd::Native<detail::widest_acc_t<Y, X>, W>;
  simd::for_each_vector<V>(0, n, [&](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
    f(V::load(x + i, lanes)).store(y + i, lanes);
  });
}
/// y = f(a, b).
template <int W, class F, class Y, class A, class B>
ESP_SIMD_INLINE void map_row(std::int64_t n, const F& f, Y* y, const A* a, const B* b) {
  using V = simd::Native<detail::widest_acc_t<Y, A, B>, W>;
  simd::for_each_vector<V>(0, n, [&](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
    f(V::load(a + i, lanes), V::load(b + i, lanes)).store(y + i, lanes);
  });
}

/// The same, in parallel.
template <class F, class Y, class X>
void map(std::int64_t n, const F& f, Y* y, const X* x) {
  parallel_for(n, kMapGrain, [=](std::int64_t begin, std::int64_t end) {
    simd::dispatch([=]<int W>() { map_row<W>(end - begin, f, y + begin, x + begin); });
  });
}
template <class F, class Y, class A, class B>
void map(std::int64_t n, const F& f, Y* y, const A* a, const B* b) {
  parallel_for(n, kMapGrain, [=](std::int64_t begin, std::int64_t end) {
    simd::dispatch([=]<int W>() { map_row<W>(end - begin, f, y + begin, a + begin, b + begin); });
  });
}

/// The f that only converts.
struct Identity {
  template <class V>
  ESP_SIMD_INLINE V operator()(const V& x) const {
    return x;
  }
};

}  // namespace espalier::cpu
