// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/elementwise.cuh>
#include <espalier/kernels/instances.hpp>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T)                                                                  \
  template cudaError_t add(T*, const T*, const T*, std::int64_t, cudaStream_t);             \
  template cudaError_t scale(T*, const T*, float, std::int64_t, cudaStream_t);              \
  template cudaError_t multiply(T*, const T*, const T*, std::int64_t, cudaStream_t);        \
  template cudaError_t clamp(T*, const T*, float, float, std::int64_t, cudaStream_t);       \
  template cudaError_t clamp_backward(T*, const T*, const T*, float, float, std::int64_t,   \
                                      cudaStream_t);                                        \
  template cudaError_t cast(float*, const T*, std::int64_t, cudaStream_t);                  \
  template cudaError_t cast(__nv_bfloat16*, const T*, std::int64_t, cudaStream_t);          \
  template cudaError_t cast(__half*, const T*, std::int64_t, cudaStream_t);                 \
  template cudaError_t mask_columns(T*, const T*, const std::uint8_t*, float, std::int64_t, \
                                    std::int64_t, cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
