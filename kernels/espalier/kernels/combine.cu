// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/combine.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                    \
  template cudaError_t combine_forward(T*, const T*, const float*, const std::int32_t*,       \
                                       std::int64_t, int, std::int64_t, cudaStream_t);        \
  template cudaError_t combine_backward(T*, float*, const T*, const T*, const float*,         \
                                        const std::int32_t*, std::int64_t, int, std::int64_t, \
                                        cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
