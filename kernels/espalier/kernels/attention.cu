// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/attention.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

// The implementations are compiled in their own files.
#define ESP_FORWARD(PREFIX, NAME, T)                                                 \
  PREFIX template cudaError_t NAME(T*, float*, const T*, const AttentionSegment<T>*, \
                                   const AttentionSizes&, cudaStream_t);
#define ESP_BACKWARD(PREFIX, NAME, T)                                                        \
  PREFIX template cudaError_t NAME(const AttentionGradients<T>&, const AttentionSegment<T>*, \
                                   const AttentionSizes&, cudaStream_t);
#define ESP_INSTANTIATE(T)                          \
  ESP_FORWARD(extern, attention_plain_forward, T)   \
  ESP_BACKWARD(extern, attention_plain_backward, T) \
  ESP_FORWARD(, attention_forward, T)               \
  ESP_BACKWARD(, attention_backward, T)
#define ESP_MMA(T)                              \
  ESP_FORWARD(extern, attention_mma_forward, T) \
  ESP_BACKWARD(extern, attention_mma_backward, T)
ESP_FOR_NARROW_ELEMENTS(ESP_MMA)
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
