// SPDX-License-Identifier: Apache-2.0
// The peak rates of this machine, measured on demand with the current number of threads in about
// 0.2 s: of a large matrix product, and of a copy between arrays larger than most caches.
#pragma once

#include <concepts>
#include <cstring>

#include <espalier/core/clock.hpp>
#include <espalier/core/trace_report.hpp>
#include <espalier/ops/cpu/gemm.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier::cpu {

namespace detail {
/// The shortest of the runs of `f` that fit in `budget` seconds, after one that warms up.
template <class F>
double best_seconds(double budget, F&& f) {
  f();
  double best = 1e30;
  const double end = monotonic_seconds() + budget;
  do {
    const double begin = monotonic_seconds();
    f();
    best = std::min(best, monotonic_seconds() - begin);
  } while (monotonic_seconds() < end);
  return best;
}

template <class T>
double gemm_flops() {
  constexpr std::int64_t kSize = 1024;
  const Shape shape{kSize, kSize};
  const Tensor<T> a(shape, static_cast<T>(1.0f)), b(shape, static_cast<T>(1.0f)), c(shape);
  const double seconds = best_seconds(0.06, [&] {
    gemm<T>(kSize, kSize, kSize, {a.data(), a.dtype(), kSize}, {b.data(), b.dtype(), kSize, true},
            c.data(), kSize);
  });
  return 2.0 * kSize * kSize * kSize / seconds;
}

inline double copied_bytes() {
  constexpr std::int64_t kBytes = 64 << 20;
  const Tensor<std::uint8_t> from({kBytes}), to({kBytes});
  parallel_for(kBytes, 1 << 18, [&](std::int64_t begin, std::int64_t end) {
    std::memset(from.data() + begin, 1, static_cast<std::size_t>(end - begin));
  });
  const double seconds = best_seconds(0.03, [&] {
    parallel_for(kBytes, 1 << 18, [&](std::int64_t begin, std::int64_t end) {
      std::memcpy(to.data() + begin, from.data() + begin, static_cast<std::size_t>(end - begin));
    });
  });
  return 2.0 * kBytes / seconds;
}
}  // namespace detail

/// Peak rates of products in T and in bf16. A template, so that only callers compile it.
template <FloatElement T = float>
[[nodiscard]] trace::Ceilings measure_ceilings() {
  return {detail::gemm_flops<T>(), detail::gemm_flops<bf16>(), detail::copied_bytes()};
}

}  // namespace espalier::cpu
