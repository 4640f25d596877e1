// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/grouped_gemm_plain.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE_ROWS(NAME, C, A, B)                                                        \
  template cudaError_t NAME(C*, const A*, const B* const*, const std::int32_t*, int, std::int64_t, \
                            std::int64_t, std::int64_t, float, float, cudaStream_t);
#define ESP_INSTANTIATE(C, A, B)                       \
  ESP_INSTANTIATE_ROWS(grouped_gemm_plain_nt, C, A, B) \
  ESP_INSTANTIATE_ROWS(grouped_gemm_plain_nn, C, A, B)
#define ESP_INSTANTIATE_TN(C, A, B)                                                              \
  template cudaError_t grouped_gemm_plain_tn(C* const*, const A*, const B*, const std::int32_t*, \
                                             int, std::int64_t, std::int64_t, float, float,      \
                                             cudaStream_t);
ESP_INSTANTIATE(float, float, float)
ESP_INSTANTIATE(float, float, __nv_bfloat16)  // f32 activations on stored 2-byte weights
ESP_INSTANTIATE(float, float, __half)
ESP_INSTANTIATE(__nv_bfloat16, __nv_bfloat16, __nv_bfloat16)
ESP_INSTANTIATE(float, __nv_bfloat16, __nv_bfloat16)
ESP_INSTANTIATE(__half, __half, __half)
ESP_INSTANTIATE(float, __half, __half)
ESP_INSTANTIATE_TN(float, float, float)
ESP_INSTANTIATE_TN(float, __nv_bfloat16, __nv_bfloat16)
ESP_INSTANTIATE_TN(float, __half, __half)

}  // namespace espalier::kernels
