// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/clamped_swiglu.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                         \
  template cudaError_t clamped_swiglu_forward(T*, const T*, const T*, float, float, std::int64_t,  \
                                              cudaStream_t);                                       \
  template cudaError_t clamped_swiglu_backward(T*, T*, const T*, const T*, const T*, float, float, \
                                               std::int64_t, cudaStream_t);
ESP_INSTANTIATE(float)
ESP_INSTANTIATE(__nv_bfloat16)
ESP_INSTANTIATE(__half)

}  // namespace espalier::kernels
