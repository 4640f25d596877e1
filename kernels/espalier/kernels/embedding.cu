// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/embedding.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

#define ESP_INSTANTIATE_W(T, W)                                                           \
  template cudaError_t embedding_forward(T*, const W*, const std::int32_t*, std::int64_t, \
                                         std::int64_t, std::int64_t, cudaStream_t);
#define ESP_INSTANTIATE(T)                                                                     \
  template cudaError_t embedding_backward(float*, const T*, const std::int32_t*, std::int64_t, \
                                          std::int64_t, std::int64_t, cudaStream_t);
ESP_FOR_ELEMENTS_AND_WEIGHTS(ESP_INSTANTIATE_W)
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
