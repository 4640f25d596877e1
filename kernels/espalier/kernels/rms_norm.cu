// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/instances.hpp>
#include <espalier/kernels/rms_norm.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE_W(T, W)                                                          \
  template cudaError_t rms_norm_forward(T*, float*, const T*, const W*, std::int64_t,    \
                                        std::int64_t, float, cudaStream_t);              \
  template cudaError_t rms_norm_backward(T*, const T*, const T*, const W*, const float*, \
                                         std::int64_t, std::int64_t, cudaStream_t);
#define ESP_INSTANTIATE(T)                                                                     \
  template cudaError_t rms_norm_gain_backward(float*, const T*, const T*, const float*, void*, \
                                              std::int64_t, std::int64_t, cudaStream_t);
ESP_FOR_ELEMENTS_AND_WEIGHTS(ESP_INSTANTIATE_W)
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
