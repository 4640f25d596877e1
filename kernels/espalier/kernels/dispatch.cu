// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/dispatch.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                     \
  template cudaError_t dispatch_forward(T*, const T*, const std::int32_t*, std::int64_t, int,  \
                                        std::int64_t, cudaStream_t);                           \
  template cudaError_t dispatch_backward(T*, const T*, const std::int32_t*, std::int64_t, int, \
                                         std::int64_t, cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
