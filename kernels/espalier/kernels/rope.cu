// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/instances.hpp>
#include <espalier/kernels/rope.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T) \
  template cudaError_t rope(T*, const T*, const float*, const RopeSizes&, float, cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
