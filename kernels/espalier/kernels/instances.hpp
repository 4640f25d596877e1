// SPDX-License-Identifier: Apache-2.0
// The element types that .cu files compile launchers for, as lists of calls of a macro.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

/// f(T) for every element type.
#define ESP_FOR_ELEMENTS(f) f(float) ESP_FOR_NARROW_ELEMENTS(f)
/// f(T) for those that tensor cores multiply.
#define ESP_FOR_NARROW_ELEMENTS(f) f(__nv_bfloat16) f(__half)
/// f(T, W) for activations T beside parameters W. A model in f32 may keep its parameters in bf16 or
/// f16; one in bf16 or f16 may train parameters in f32.
#define ESP_FOR_ELEMENTS_AND_WEIGHTS(f)                                                    \
  f(float, float) f(float, __nv_bfloat16) f(float, __half) f(__nv_bfloat16, __nv_bfloat16) \
      f(__nv_bfloat16, float) f(__half, __half) f(__half, float)
