// SPDX-License-Identifier: Apache-2.0
// Stands in for the CUDA Toolkit's header of this name when kernels run on the CPU.
#pragma once

#include <bit>

#include <espalier/core/dtype.hpp>

struct alignas(2) __half {
  unsigned short bits;
};
struct alignas(4) __half2 {
  __half x, y;
};
inline float __half2float(__half v) {
  return static_cast<float>(std::bit_cast<espalier::f16>(v));
}
inline __half __float2half_rn(float v) {
  return std::bit_cast<__half>(espalier::f16(v));
}
