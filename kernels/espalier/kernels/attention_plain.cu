// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/attention_plain.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                        \
  template cudaError_t attention_plain_forward(T*, float*, const T*, const AttentionSegment<T>*,  \
                                               const AttentionSizes&, cudaStream_t);              \
  template cudaError_t attention_plain_backward(                                                  \
      T*, T*, T*, float*, const T*, const T*, const float*, const T*, const AttentionSegment<T>*, \
      const AttentionSizes&, cudaStream_t);
ESP_INSTANTIATE(float)
ESP_INSTANTIATE(__nv_bfloat16)
ESP_INSTANTIATE(__half)

}  // namespace espalier::kernels
