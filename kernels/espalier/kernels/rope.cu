// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/rope.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T) \
  template cudaError_t rope(T*, const T*, const float*, const RopeSizes&, float, cudaStream_t);
ESP_INSTANTIATE(float)
ESP_INSTANTIATE(__nv_bfloat16)
ESP_INSTANTIATE(__half)

}  // namespace espalier::kernels
