// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/attention_mma_backward.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                       \
  template cudaError_t attention_mma_backward(const AttentionGradients<T>&,                      \
                                              const AttentionSegment<T>*, const AttentionSizes&, \
                                              cudaStream_t);
ESP_FOR_NARROW_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
