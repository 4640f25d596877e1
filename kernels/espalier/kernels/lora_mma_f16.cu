// SPDX-License-Identifier: Apache-2.0
#include <espalier/kernels/lora_instances.hpp>
#include <espalier/kernels/lora_mma.cuh>

namespace espalier::kernels {

ESP_LORA(, mma, __half)

}  // namespace espalier::kernels
