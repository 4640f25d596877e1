// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/clamped_swiglu.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                         \
  template cudaError_t clamped_swiglu_forward(T*, const T*, const T*, float, float, std::int64_t,  \
                                              cudaStream_t);                                       \
  template cudaError_t clamped_swiglu_backward(T*, T*, const T*, const T*, const T*, float, float, \
                                               std::int64_t, cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
