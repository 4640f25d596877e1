// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/grouped_gemm_instances.hpp>
#include <espalier/kernels/grouped_gemm_wgmma.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(C, T)                              \
  ESP_GEMM_ROWS(, grouped_gemm_wgmma_rows, C, T, T, void*) \
  ESP_GEMM_TN(, grouped_gemm_wgmma_tn, C, T, T, void*)
ESP_FOR_GEMM_MMA(ESP_INSTANTIATE)

}  // namespace espalier::kernels
