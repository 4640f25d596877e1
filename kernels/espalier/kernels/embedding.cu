// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/embedding.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE_W(T, W)                                                           \
  template cudaError_t embedding_forward(T*, const W*, const std::int32_t*, std::int64_t, \
                                         std::int64_t, std::int64_t, cudaStream_t);
#define ESP_INSTANTIATE(T)                                                                     \
  template cudaError_t embedding_backward(float*, const T*, const std::int32_t*, std::int64_t, \
                                          std::int64_t, std::int64_t, cudaStream_t);
ESP_INSTANTIATE_W(float, float)
ESP_INSTANTIATE_W(float, __nv_bfloat16)
ESP_INSTANTIATE_W(float, __half)
ESP_INSTANTIATE_W(__nv_bfloat16, __nv_bfloat16)
ESP_INSTANTIATE_W(__nv_bfloat16, float)
ESP_INSTANTIATE_W(__half, __half)
ESP_INSTANTIATE_W(__half, float)
ESP_INSTANTIATE(float)
ESP_INSTANTIATE(__nv_bfloat16)
ESP_INSTANTIATE(__half)

}  // namespace espalier::kernels
