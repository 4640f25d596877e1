// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/bias.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

#define ESP_INSTANTIATE_B(T, B)                                                                    \
  template cudaError_t add_bias(T*, const T*, const B*, std::int64_t, std::int64_t, cudaStream_t); \
  template cudaError_t add_bias_grouped(T*, const T*, const B* const*, const std::int32_t*, int,   \
                                        std::int64_t, std::int64_t, cudaStream_t);
#define ESP_INSTANTIATE(T)                                                                     \
  template cudaError_t bias_backward(float*, const T*, const std::int32_t*, int, std::int64_t, \
                                     std::int64_t, void*, cudaStream_t);
ESP_FOR_ELEMENTS_AND_WEIGHTS(ESP_INSTANTIATE_B)
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
