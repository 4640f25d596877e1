// SPDX-License-Identifier: Apache-2.0
// What the .cu files of the grouped products compile: the signatures of their launchers, and the
// types C, A, B of c, a and b.
#pragma once

#include <espalier/kernels/instances.hpp>

/// A launcher over rows, NAME<form>; PREFIX is `extern` or empty, behind B come further arguments.
#define ESP_GEMM_ROWS(PREFIX, NAME, C, A, B, ...)                 \
  ESP_GEMM_FORM(PREFIX, NAME<GemmForm::nt>, C, A, B, __VA_ARGS__) \
  ESP_GEMM_FORM(PREFIX, NAME<GemmForm::nn>, C, A, B, __VA_ARGS__)
#define ESP_GEMM_FORM(PREFIX, NAME, C, A, B, ...)                                           \
  PREFIX template cudaError_t NAME(C*, const A*, const B* const*, const std::int32_t*, int, \
                                   std::int64_t, std::int64_t, std::int64_t, float, float,  \
                                   cudaStream_t __VA_OPT__(, ) __VA_ARGS__);
#define ESP_GEMM_TN(PREFIX, NAME, C, A, B, ...)                                             \
  PREFIX template cudaError_t NAME(C* const*, const A*, const B*, const std::int32_t*, int, \
                                   std::int64_t, std::int64_t, float, float,                \
                                   cudaStream_t __VA_OPT__(, ) __VA_ARGS__);

/// f(C, A, B) for products over rows: f32 activations may meet weights that are stored in 2 bytes.
#define ESP_FOR_GEMM_ROWS(f)                                                                \
  f(float, float, float) f(float, float, __nv_bfloat16) f(float, float, __half)             \
      f(__nv_bfloat16, __nv_bfloat16, __nv_bfloat16) f(float, __nv_bfloat16, __nv_bfloat16) \
          f(__half, __half, __half) f(float, __half, __half)
/// f(C, A, B) for gradients of weights.
#define ESP_FOR_GEMM_TN(f) \
  f(float, float, float) f(float, __nv_bfloat16, __nv_bfloat16) f(float, __half, __half)
/// f(C, T) for all products of tensor cores.
#define ESP_FOR_GEMM_MMA(f) \
  f(__nv_bfloat16, __nv_bfloat16) f(float, __nv_bfloat16) f(__half, __half) f(float, __half)
