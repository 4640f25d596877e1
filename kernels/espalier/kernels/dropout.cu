// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/dropout.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                      \
  template cudaError_t dropout(T*, const T*, float, std::uint64_t, std::uint64_t, std::int64_t, \
                               cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
