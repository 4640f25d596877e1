// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/attention_mma_forward.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

#define ESP_FORWARD(NAME, T)                                                  \
  template cudaError_t NAME(T*, float*, const T*, const AttentionSegment<T>*, \
                            const AttentionSizes&, cudaStream_t);
#define ESP_INSTANTIATE(T)                                  \
  ESP_FORWARD(attention_mma_forward_tiles<kForwardRows>, T) \
  ESP_FORWARD(attention_mma_forward_tiles<kFewRows>, T)     \
  ESP_FORWARD(attention_mma_forward, T)
ESP_FOR_NARROW_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
