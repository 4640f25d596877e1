// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/attention_sinks.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                    \
  template cudaError_t attention_sinks(T*, float*, const float*, const AttentionSinkSizes&,   \
                                       cudaStream_t);                                         \
  template cudaError_t attention_sinks_backward(T*, const float*, const float*, const float*, \
                                                std::int64_t, std::int64_t, cudaStream_t);
ESP_INSTANTIATE(float)
ESP_INSTANTIATE(__nv_bfloat16)
ESP_INSTANTIATE(__half)

}  // namespace espalier::kernels
