// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/grouped_gemm_instances.hpp>
#include <espalier/kernels/grouped_gemm_mma.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(C, T)                     \
  ESP_GEMM_ROWS(, grouped_gemm_mma_rows, C, T, T) \
  ESP_GEMM_TN(, grouped_gemm_mma_tn, C, T, T)
ESP_FOR_GEMM_MMA(ESP_INSTANTIATE)

}  // namespace espalier::kernels
