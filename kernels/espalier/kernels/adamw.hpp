// SPDX-License-Identifier: Apache-2.0
// One update of AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2) on f32 arrays:
//   g = scale · grad     m += (1 - β1)(g - m)     v = β2 v + (1 - β2) g²
//   p = keep · p - step_size · m / (√v / root_correction2 + eps)
// keep = 1 - lr · decay, step_size = lr / (1 - β1^t), root_correction2 = √(1 - β2^t).
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

struct AdamWConstants {
  float keep, one_minus_beta1, beta2, one_minus_beta2, root_correction2, eps, step_size, scale;
};

constexpr double adamw_bytes(std::int64_t n) {
  return 28.0 * double(n);
}

/// T is float. `grad` null stands for zeros.
template <class T>
cudaError_t adamw(T* p, T* m, T* v, const T* grad, std::int64_t n, const AdamWConstants& constants,
                  cudaStream_t stream);

}  // namespace espalier::kernels
