// SPDX-License-Identifier: Apache-2.0
// Elementwise work on any number of elements, computed in f32 and rounded once.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

constexpr double add_bytes(std::int64_t n, int element_bytes) {
  return 3.0 * double(n) * element_bytes;
}

/// y = a + b; y may be one of them.
template <class T>
cudaError_t add(T* y, const T* a, const T* b, std::int64_t n, cudaStream_t stream);

/// y = factor · x; y may be x.
template <class T>
cudaError_t scale(T* y, const T* x, float factor, std::int64_t n, cudaStream_t stream);

/// y = a · b; y may be one of them.
template <class T>
cudaError_t multiply(T* y, const T* a, const T* b, std::int64_t n, cudaStream_t stream);

/// To To, rounded to nearest even.
template <class To, class From>
cudaError_t cast(To* y, const From* x, std::int64_t n, cudaStream_t stream);

/// y = low where x < low, high where x > high, x elsewhere, NaN included; y may be x. The bounds
/// are values of T or infinite.
template <class T>
cudaError_t clamp(T* y, const T* x, float low, float high, std::int64_t n, cudaStream_t stream);

/// dx = dy where low <= x <= high, 0 elsewhere, at NaN too; dx may be one of them.
template <class T>
cudaError_t clamp_backward(T* dx, const T* dy, const T* x, float low, float high, std::int64_t n,
                           cudaStream_t stream);

/// Columns with keep[c] = 0 of x [N, C] become `value`; y may be x.
template <class T>
cudaError_t mask_columns(T* y, const T* x, const std::uint8_t* keep, float value, std::int64_t n,
                         std::int64_t c, cudaStream_t stream);

}  // namespace espalier::kernels
