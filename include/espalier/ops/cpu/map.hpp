// SPDX-License-Identifier: Apache-2.0
// Elementwise loops: y[i] = f(a[i], b[i], ...), with f from vectors to a vector. The element types
// may differ: values are widened when they are read, computed in float, or in double where one of
// them is, and rounded once when they are written. y may be one of the inputs.
#pragma once

#include <cstdint>
#include <type_traits>

#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/simd.hpp>

namespace espalier::cpu {

namespace detail {
template <class... Ts>
inline constexpr bool in_double = (std::same_as<acc_t<Ts>, double> || ...);
template <class... Ts>
using widest_acc_t = std::conditional_t<in_double<Ts...>, double, float>;
/// True where widening two vectors at a time pays: see simd::Pair.
template <class Y, class... X>
inline constexpr bool in_pairs = std::same_as<Y, bf16> &&
                                 ((std::same_as<X, bf16> || std::same_as<X, float>)&&...);
}  // namespace detail

inline constexpr std::int64_t kMapGrain = 1 << 15;

/// On one thread, inside a dispatch over W floats.
template <int W, class F, class Y, class... X>
ESP_SIMD_INLINE void map_row(std::int64_t n, const F& f, Y* y, const X*... x) {
  using V = simd::Native<detail::widest_acc_t<Y, X...>, W>;
  std::int64_t done = 0;
  if constexpr (detail::in_pairs<Y, X...>) {
    using Pair = simd::Pair<W>;
    const auto both = [&](const auto&... p) ESP_SIMD_LAMBDA {
      return Pair{f(p.even...), f(p.odd...)};
    };
    for (; done + 2 * W <= n; done += 2 * W) both(Pair::load_ahead(x + done)...).store(y + done);
  }
  simd::for_each_vector<V>(done, n, [&](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
    f(V::load_ahead(x + i, lanes)...).store(y + i, lanes);
  });
}

/// The same, in parallel.
template <class F, class Y, class... X>
void map(std::int64_t n, const F& f, Y* y, const X*... x) {
  parallel_for(n, kMapGrain, [=](std::int64_t begin, std::int64_t end) {
    simd::dispatch([=]<int W>() { map_row<W>(end - begin, f, y + begin, (x + begin)...); });
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
