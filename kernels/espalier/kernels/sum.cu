// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/instances.hpp>
#include <espalier/kernels/sum.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                       \
  template cudaError_t sum(float*, const T*, std::int64_t, void*, cudaStream_t); \
  template cudaError_t sum_backward(T*, const float*, std::int64_t, cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
