// SPDX-License-Identifier: Apache-2.0
// Stands in for the CUDA Toolkit's header of this name when kernels run on the CPU.
#pragma once

#include <bit>

#include <espalier/core/dtype.hpp>

struct alignas(2) __nv_bfloat16 {
  unsigned short bits;
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline float __bfloat162float(__nv_bfloat16 v) {
  return static_cast<float>(std::bit_cast<espalier::bf16>(v));
}
inline __nv_bfloat16 __float2bfloat16_rn(float v) {
  return std::bit_cast<__nv_bfloat16>(espalier::bf16(v));
}
