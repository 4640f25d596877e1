// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/lora.cuh>

namespace espalier::kernels {

// The implementations are compiled in their own files.
#define ESP_IMPLEMENTATION(NAME, T)                                                                \
  extern template cudaError_t lora_##NAME##_pass<LoraPass::down, T>(const LoraPassArguments<T>&,   \
                                                                    cudaStream_t);                 \
  extern template cudaError_t lora_##NAME##_pass<LoraPass::backward_up, T>(                        \
      const LoraPassArguments<T>&, cudaStream_t);                                                  \
  extern template cudaError_t lora_##NAME##_pass<LoraPass::backward_down, T>(                      \
      const LoraPassArguments<T>&, cudaStream_t);                                                  \
  extern template cudaError_t lora_##NAME##_up<false, T>(const LoraUpArguments<T>&, cudaStream_t); \
  extern template cudaError_t lora_##NAME##_up<true, T>(const LoraUpArguments<T>&, cudaStream_t);
ESP_IMPLEMENTATION(plain, float)
ESP_IMPLEMENTATION(plain, __nv_bfloat16)
ESP_IMPLEMENTATION(plain, __half)
ESP_IMPLEMENTATION(mma, __nv_bfloat16)
ESP_IMPLEMENTATION(mma, __half)

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
ESP_INSTANTIATE(float)
ESP_INSTANTIATE(__nv_bfloat16)
ESP_INSTANTIATE(__half)

}  // namespace espalier::kernels
