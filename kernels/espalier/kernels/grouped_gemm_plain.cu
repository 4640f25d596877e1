// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/grouped_gemm_instances.hpp>
#include <espalier/kernels/grouped_gemm_plain.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(C, A, B) ESP_GEMM_ROWS(, grouped_gemm_plain_rows, C, A, B)
#define ESP_INSTANTIATE_TN(C, A, B) ESP_GEMM_TN(, grouped_gemm_plain_tn, C, A, B)
ESP_FOR_GEMM_ROWS(ESP_INSTANTIATE)
ESP_FOR_GEMM_TN(ESP_INSTANTIATE_TN)

}  // namespace espalier::kernels
