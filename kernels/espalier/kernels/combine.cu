// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/combine.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                    \
  template cudaError_t combine_forward(T*, const T*, const float*, const std::int32_t*,       \
                                       std::int64_t, int, std::int64_t, cudaStream_t);        \
  template cudaError_t combine_backward(T*, float*, const T*, const T*, const float*,         \
                                        const std::int32_t*, std::int64_t, int, std::int64_t, \
                                        cudaStream_t);
ESP_INSTANTIATE(float)
ESP_INSTANTIATE(__nv_bfloat16)
ESP_INSTANTIATE(__half)

}  // namespace espalier::kernels
