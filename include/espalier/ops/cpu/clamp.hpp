// SPDX-License-Identifier: Apache-2.0
// Vectors clamped to two bounds, and the mask of the lanes within them.
#pragma once

#include <espalier/ops/cpu/simd.hpp>

namespace espalier::simd {

/// low where x < low, high where x > high, x elsewhere; NaN stays NaN.
template <std::floating_point T, int W>
ESP_SIMD_INLINE Vec<T, W> clamp(const Vec<T, W>& x, const Vec<T, W>& low, const Vec<T, W>& high) {
  return max(low, min(high, x));
}
/// low <= x <= high; not so for NaN.
template <std::floating_point T, int W>
ESP_SIMD_INLINE Mask<T, W> within(const Vec<T, W>& x, const Vec<T, W>& low, const Vec<T, W>& high) {
  return {(low.v <= x.v) & (x.v <= high.v)};
}

}  // namespace espalier::simd

namespace espalier::cpu {

/// A bound as elements of type T have it, so that a result is one of them.
template <FloatElement T>
[[nodiscard]] acc_t<T> bound_of(double bound) {
  return static_cast<acc_t<T>>(static_cast<T>(static_cast<acc_t<T>>(bound)));
}

}  // namespace espalier::cpu
