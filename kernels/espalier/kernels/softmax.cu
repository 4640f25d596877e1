// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/softmax.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                      \
  template cudaError_t softmax_forward(T*, const T*, std::int64_t, std::int64_t, cudaStream_t); \
  template cudaError_t softmax_backward(T*, const T*, const T*, std::int64_t, std::int64_t,     \
                                        cudaStream_t);
ESP_INSTANTIATE(float)
ESP_INSTANTIATE(__nv_bfloat16)
ESP_INSTANTIATE(__half)

}  // namespace espalier::kernels
