// SPDX-License-Identifier: Apache-2.0
// What the .cu files of an implementation of lora.hpp compile: its launchers, by name and type.
#pragma once

#include <espalier/kernels/instances.hpp>

/// All that NAME (plain, mma) has for elements T; PREFIX is `extern` or empty.
#define ESP_LORA(PREFIX, NAME, T)                                                                  \
  ESP_LORA_PASS(PREFIX, NAME, down, T)                                                             \
  ESP_LORA_PASS(PREFIX, NAME, backward_up, T)                                                      \
  ESP_LORA_PASS(PREFIX, NAME, backward_down, T)                                                    \
  PREFIX template cudaError_t lora_##NAME##_up<false, T>(const LoraUpArguments<T>&, cudaStream_t); \
  PREFIX template cudaError_t lora_##NAME##_up<true, T>(const LoraUpArguments<T>&, cudaStream_t);
#define ESP_LORA_PASS(PREFIX, NAME, PASS, T)                                                     \
  PREFIX template cudaError_t lora_##NAME##_pass<LoraPass::PASS, T>(const LoraPassArguments<T>&, \
                                                                    cudaStream_t);
