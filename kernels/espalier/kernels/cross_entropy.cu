// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/cross_entropy.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

template cudaError_t cross_entropy_forward(float*, float*, std::int32_t*, const float*,
                                           const std::int32_t*, std::int64_t, std::int64_t,
                                           cudaStream_t);
template cudaError_t add_sum(float*, const float*, float, std::int64_t, cudaStream_t);

#define ESP_INSTANTIATE(T)                                                                         \
  template cudaError_t cross_entropy_backward(T*, const float*, const float*, const std::int32_t*, \
                                              const float*, std::int64_t, std::int64_t,            \
                                              cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
