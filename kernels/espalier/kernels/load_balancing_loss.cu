// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/instances.hpp>
#include <espalier/kernels/load_balancing_loss.cuh>

namespace espalier::kernels {

template cudaError_t load_balancing_loss(float*, const double*, std::int64_t, int, cudaStream_t);

#define ESP_INSTANTIATE(T)                                                                \
  template cudaError_t load_balancing_add(double*, const T*, const std::int32_t*, void*,  \
                                          std::int64_t, int, int, cudaStream_t);          \
  template cudaError_t load_balancing_backward(T*, const T*, const double*, const float*, \
                                               std::int64_t, std::int64_t, int, cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
