// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/grouped_gemm.cuh>
#include <espalier/kernels/grouped_gemm_instances.hpp>

namespace espalier::kernels {

// The implementations are compiled in their own files.
#define ESP_INSTANTIATE(C, A, B)                          \
  ESP_GEMM_ROWS(extern, grouped_gemm_plain_rows, C, A, B) \
  ESP_GEMM_ROWS(, grouped_gemm_rows, C, A, B, void*)
#define ESP_INSTANTIATE_TN(C, A, B)                   \
  ESP_GEMM_TN(extern, grouped_gemm_plain_tn, C, A, B) \
  ESP_GEMM_TN(, grouped_gemm_tn, C, A, B, void*)
#define ESP_TENSOR_CORES(C, T)                                   \
  ESP_GEMM_ROWS(extern, grouped_gemm_mma_rows, C, T, T)          \
  ESP_GEMM_TN(extern, grouped_gemm_mma_tn, C, T, T)              \
  ESP_GEMM_ROWS(extern, grouped_gemm_wgmma_rows, C, T, T, void*) \
  ESP_GEMM_TN(extern, grouped_gemm_wgmma_tn, C, T, T, void*)
ESP_FOR_GEMM_MMA(ESP_TENSOR_CORES)
ESP_FOR_GEMM_ROWS(ESP_INSTANTIATE)
ESP_FOR_GEMM_TN(ESP_INSTANTIATE_TN)

}  // namespace espalier::kernels
