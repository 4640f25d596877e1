// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/grouped_gemm_wgmma.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(C, T)                                                                      \
  template cudaError_t grouped_gemm_wgmma_nt(C*, const T*, const T* const*, const std::int32_t*,   \
                                             int, std::int64_t, std::int64_t, std::int64_t, float, \
                                             float, cudaStream_t, void*);                          \
  template cudaError_t grouped_gemm_wgmma_nn(C*, const T*, const T* const*, const std::int32_t*,   \
                                             int, std::int64_t, std::int64_t, std::int64_t, float, \
                                             float, cudaStream_t, void*);                          \
  template cudaError_t grouped_gemm_wgmma_tn(C* const*, const T*, const T*, const std::int32_t*,   \
                                             int, std::int64_t, std::int64_t, float, float,        \
                                             cudaStream_t, void*);
ESP_INSTANTIATE(__nv_bfloat16, __nv_bfloat16)
ESP_INSTANTIATE(float, __nv_bfloat16)
ESP_INSTANTIATE(__half, __half)
ESP_INSTANTIATE(float, __half)

}  // namespace espalier::kernels
