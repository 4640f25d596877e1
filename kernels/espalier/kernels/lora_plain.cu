// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/lora_instances.hpp>
#include <espalier/kernels/lora_plain.cuh>

namespace espalier::kernels {

#define ESP_INSTANTIATE(T) ESP_LORA(, plain, T)
ESP_FOR_ELEMENTS(ESP_INSTANTIATE)

}  // namespace espalier::kernels
