// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/rms_norm.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE_W(T, W)                                                          \
  template cudaError_t rms_norm_forward(T*, float*, const T*, const W*, std::int64_t,    \
                                        std::int64_t, float, cudaStream_t);              \
  template cudaError_t rms_norm_backward(T*, const T*, const T*, const W*, const float*, \
                                         std::int64_t, std::int64_t, cudaStream_t);
#define ESP_INSTANTIATE(T)                                                                     \
  template cudaError_t rms_norm_gain_backward(float*, const T*, const T*, const float*, void*, \
                                              std::int64_t, std::int64_t, cudaStream_t);
// A model in f32 may keep its weights in bf16 or f16; one in bf16 may train an f32 gain.
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
