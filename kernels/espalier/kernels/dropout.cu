// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/dropout.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                      \
  template cudaError_t dropout(T*, const T*, float, std::uint64_t, std::uint64_t, std::int64_t, \
                               cudaStream_t);
ESP_INSTANTIATE(float)
ESP_INSTANTIATE(__nv_bfloat16)
ESP_INSTANTIATE(__half)

}  // namespace espalier::kernels
