// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/attention_plain.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                         \
  template cudaError_t attention_plain_forward(T*, float*, const T*, const AttentionSegment<T>*,   \
                                               const AttentionSizes&, cudaStream_t);               \
  template cudaError_t attention_plain_backward(const AttentionGradients<T>&,                      \
                                                const AttentionSegment<T>*, const AttentionSizes&, \
                                                cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
