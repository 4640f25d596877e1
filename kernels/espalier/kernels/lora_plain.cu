// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/lora_plain.cuh>

namespace espalier::kernels {

#define ESP_PASS(PASS, T)                                                              \
  template cudaError_t lora_plain_pass<LoraPass::PASS, T>(const LoraPassArguments<T>&, \
                                                          cudaStream_t);
#define ESP_INSTANTIATE(T)                                                               \
  ESP_PASS(down, T)                                                                      \
  ESP_PASS(backward_up, T)                                                               \
  ESP_PASS(backward_down, T)                                                             \
  template cudaError_t lora_plain_up<false, T>(const LoraUpArguments<T>&, cudaStream_t); \
  template cudaError_t lora_plain_up<true, T>(const LoraUpArguments<T>&, cudaStream_t);
ESP_INSTANTIATE(float)
ESP_INSTANTIATE(__nv_bfloat16)
ESP_INSTANTIATE(__half)

}  // namespace espalier::kernels
