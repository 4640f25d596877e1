// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/lora.cuh>
#include <espalier/kernels/lora_instances.hpp>

namespace espalier::kernels {

// The implementations are compiled in their own files.
#define ESP_PLAIN(T) ESP_LORA(extern, plain, T)
#define ESP_MMA(T) ESP_LORA(extern, mma, T)
ESP_FOR_ELEMENTS(ESP_PLAIN)
ESP_FOR_NARROW_ELEMENTS(ESP_MMA)

#define ESP_INSTANTIATE(T)                                                                         \
  template cudaError_t lora_down(T*, const T*, const float* const*, const std::int32_t*, int,      \
                                 std::int64_t, std::int64_t, int, void*, cudaStream_t);            \
  template cudaError_t lora_up(T*, const T*, const float* const*, const std::int32_t*, int,        \
                               std::int64_t, std::int64_t, int, float, bool, cudaStream_t);        \
  template cudaError_t lora_backward_up(                                                           \
      T*, float* const*, const T*, const T*, const float* const*, const std::int32_t*, int,        \
      std::int64_t, std::int64_t, int, float, void*, cudaStream_t);                                \
  template cudaError_t lora_backward_down(float* const*, const T*, const T*, const std::int32_t*,  \
                                          int, std::int64_t, std::int64_t, int, void*,             \
                                          cudaStream_t);                                           \
  template cudaError_t lora_backward_input(T*, const T*, const float* const*, const std::int32_t*, \
                                           int, std::int64_t, std::int64_t, int, bool,             \
                                           cudaStream_t);
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
