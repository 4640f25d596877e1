// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/bias.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE_B(T, B)                                                                    \
  template cudaError_t add_bias(T*, const T*, const B*, std::int64_t, std::int64_t, cudaStream_t); \
  template cudaError_t add_bias_grouped(T*, const T*, const B* const*, const std::int32_t*, int,   \
                                        std::int64_t, std::int64_t, cudaStream_t);
#define ESP_INSTANTIATE(T)                                                                     \
  template cudaError_t bias_backward(float*, const T*, const std::int32_t*, int, std::int64_t, \
                                     std::int64_t, void*, cudaStream_t);
// A model in f32 may keep its biases in bf16 or f16; one in bf16 may train f32 biases.
ESP_INSTANTIATE_B(float, float)
ESP_INSTANTIATE_B(float, __nv_bfloat16)
ESP_INSTANTIATE_B(float, __half)
ESP_INSTANTIATE_B(__nv_bfloat16, __nv_bfloat16)
ESP_INSTANTIATE_B(__nv_bfloat16, float)
ESP_INSTANTIATE_B(__half, __half)
ESP_INSTANTIATE_B(__half, float)
ESP_INSTANTIATE(float)
ESP_INSTANTIATE(__nv_bfloat16)
ESP_INSTANTIATE(__half)

}  // namespace espalier::kernels
