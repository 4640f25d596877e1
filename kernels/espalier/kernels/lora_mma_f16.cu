// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/lora_mma.cuh>

namespace espalier::kernels {

using Element = __half;

#define ESP_PASS(PASS)                                                                           \
  template cudaError_t lora_mma_pass<LoraPass::PASS, Element>(const LoraPassArguments<Element>&, \
                                                              cudaStream_t);
ESP_PASS(down)
ESP_PASS(backward_up)
ESP_PASS(backward_down)
template cudaError_t lora_mma_up<false, Element>(const LoraUpArguments<Element>&, cudaStream_t);
template cudaError_t lora_mma_up<true, Element>(const LoraUpArguments<Element>&, cudaStream_t);

}  // namespace espalier::kernels
