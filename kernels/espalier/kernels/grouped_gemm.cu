// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/grouped_gemm.cuh>

namespace espalier::kernels {

// The implementations are compiled in their own files.
#define ESP_ROWS(PREFIX, NAME, C, A, B, ...)                                                \
  PREFIX template cudaError_t NAME(C*, const A*, const B* const*, const std::int32_t*, int, \
                                   std::int64_t, std::int64_t, std::int64_t, float, float,  \
                                   cudaStream_t __VA_OPT__(, ) __VA_ARGS__);
#define ESP_TN(PREFIX, NAME, C, A, B, ...)                                                  \
  PREFIX template cudaError_t NAME(C* const*, const A*, const B*, const std::int32_t*, int, \
                                   std::int64_t, std::int64_t, float, float,                \
                                   cudaStream_t __VA_OPT__(, ) __VA_ARGS__);
#define ESP_INSTANTIATE(C, A, B)                   \
  ESP_ROWS(extern, grouped_gemm_plain_nt, C, A, B) \
  ESP_ROWS(extern, grouped_gemm_plain_nn, C, A, B) \
  ESP_ROWS(, grouped_gemm_nt, C, A, B, void*)      \
  ESP_ROWS(, grouped_gemm_nn, C, A, B, void*)
#define ESP_INSTANTIATE_TN(C, A, B)              \
  ESP_TN(extern, grouped_gemm_plain_tn, C, A, B) \
  ESP_TN(, grouped_gemm_tn, C, A, B, void*)
#define ESP_TENSOR_CORES(C, T)                            \
  ESP_ROWS(extern, grouped_gemm_mma_nt, C, T, T)          \
  ESP_ROWS(extern, grouped_gemm_mma_nn, C, T, T)          \
  ESP_TN(extern, grouped_gemm_mma_tn, C, T, T)            \
  ESP_ROWS(extern, grouped_gemm_wgmma_nt, C, T, T, void*) \
  ESP_ROWS(extern, grouped_gemm_wgmma_nn, C, T, T, void*) \
  ESP_TN(extern, grouped_gemm_wgmma_tn, C, T, T, void*)
ESP_TENSOR_CORES(__nv_bfloat16, __nv_bfloat16)
ESP_TENSOR_CORES(float, __nv_bfloat16)
ESP_TENSOR_CORES(__half, __half)
ESP_TENSOR_CORES(float, __half)
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
