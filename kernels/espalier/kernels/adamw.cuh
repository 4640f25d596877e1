// SPDX-License-Identifier: Apache-2.0
// A thread per element: reads p, m, v and the gradient once, writes p, m and v.
#pragma once

#include <espalier/kernels/adamw.hpp>
#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

inline constexpr int kAdamWThreads = 256;

template <class T>
__global__ void __launch_bounds__(kAdamWThreads)
    adamw_kernel(T* p, T* m, T* v, const T* grad, std::int64_t n, AdamWConstants c) {
  const std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i >= n) return;
  const T g = grad != nullptr ? grad[i] * c.scale : T(0);
  const T mi = m[i] + c.one_minus_beta1 * (g - m[i]);
  const T vi = v[i] * c.beta2 + c.one_minus_beta2 * g * g;
  m[i] = mi;
  v[i] = vi;
  p[i] = p[i] * c.keep - c.step_size * (mi / (sqrtf(vi) / c.root_correction2 + c.eps));
}

template <class T>
cudaError_t adamw(T* p, T* m, T* v, const T* grad, std::int64_t n, const AdamWConstants& constants,
                  cudaStream_t stream) {
  static_assert(std::is_same_v<T, float>, "adamw keeps parameters and moments in f32");
  if (n == 0) return cudaSuccess;
  return ESP_LAUNCH(adamw_kernel<T>,
                    static_cast<unsigned>(ceil_div<std::int64_t>(n, kAdamWThreads)), kAdamWThreads,
                    0, stream, p, m, v, grad, n, constants);
}

}  // namespace espalier::kernels
