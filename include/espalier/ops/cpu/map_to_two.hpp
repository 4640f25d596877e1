// SPDX-License-Identifier: Apache-2.0
// Elementwise loops with two results: f(a[i], b[i], ..., first[i], second[i]), with f from vectors
// to two vectors. As cpu::map otherwise.
#pragma once

#include <cstdint>

#include <espalier/ops/cpu/map.hpp>

namespace espalier::cpu {

template <class F, class Y, class... X>
void map_to_two(std::int64_t n, const F& f, Y* first, Y* second, const X*... x) {
  parallel_for(n, kMapGrain / 2, [=](std::int64_t begin, std::int64_t end) {
    simd::dispatch([=]<int W>() {
      using V = simd::Native<detail::widest_acc_t<Y, X...>, W>;
      std::int64_t done = begin;
      if constexpr (detail::in_pairs<Y, X...>) {
        using Pair = simd::Pair<W>;
        const auto both = [&](const auto&... p) ESP_SIMD_LAMBDA {
          Pair a, b;
          f(p.even..., a.even, b.even);
          f(p.odd..., a.odd, b.odd);
          a.store(first + done);
          b.store(second + done);
        };
        for (; done + 2 * W <= end; done += 2 * W) both(Pair::load_ahead(x + done)...);
      }
      simd::for_each_vector<V>(done, end, [&](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
        V a, b;
        f(V::load_ahead(x + i, lanes)..., a, b);
        a.store(first + i, lanes);
        b.store(second + i, lanes);
      });
    });
  });
}

}  // namespace espalier::cpu
