// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/attention_sinks.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                    \
  template cudaError_t attention_sinks(T*, float*, const float*, const AttentionSinkSizes&,   \
                                       cudaStream_t);                                         \
  template cudaError_t attention_sinks_backward(T*, const float*, const float*, const float*, \
                                                std::int64_t, std::int64_t, cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
