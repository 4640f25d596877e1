// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/instances.hpp>
#include <espalier/kernels/norms.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                    \
  template cudaError_t row_norms(float*, const T*, std::int64_t, std::int64_t, cudaStream_t); \
  template cudaError_t sum_of_squares(double*, const T*, std::int64_t, void*, cudaStream_t);
#define ESP_INSTANTIATE_DIFFERENCE(T, U)                                                     \
  template cudaError_t row_norms_of_difference(float*, const T*, const U*, std::int64_t,     \
                                               std::int64_t, cudaStream_t);                  \
  template cudaError_t sum_of_squared_differences(double*, const T*, const U*, std::int64_t, \
                                                  void*, cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)
ESP_INSTANTIATE_DIFFERENCE(float, float)
ESP_INSTANTIATE_DIFFERENCE(__nv_bfloat16, __nv_bfloat16)
ESP_INSTANTIATE_DIFFERENCE(__half, __half)
ESP_INSTANTIATE_DIFFERENCE(float, __nv_bfloat16)  // tuned in f32 from a base in 2 bytes
ESP_INSTANTIATE_DIFFERENCE(float, __half)

}  // namespace espalier::kernels
