// SPDX-License-Identifier: Apache-2.0
// What the tests' host code needs of the header of this name, for a C++ compiler. Beside it the
// build puts, for each NAME.cuh, one that declares the launchers of NAME*.hpp: the test then calls
// those of the compiled kernels.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <espalier/kernels/runtime.hpp>
#include <type_traits>

namespace espalier::kernels {

template <class T>
float to_float(T v) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __bfloat162float(v);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __half2float(v);
  } else {
    return v;
  }
}

template <class T>
T from_float(float v) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(v);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(v);
  } else {
    return v;
  }
}

}  // namespace espalier::kernels
