// SPDX-License-Identifier: Apache-2.0
// Attention, compiled once for all programs and tests of this repository.
#include <espalier/ops/cpu/attention.hpp>
#include <espalier/ops/cpu/attention_backward.hpp>

namespace espalier::cpu {

#define ESP_ATTENTION(T)                                                                           \
  template void attention_forward(const std::vector<AttentionSegment<T>>&, const AttentionHeads&); \
  template void attention_backward(const std::vector<AttentionBackwardSegment<T>>&,                \
                                   const AttentionHeads&);
ESP_ATTENTION(float)
ESP_ATTENTION(bf16)
ESP_ATTENTION(double)

}  // namespace espalier::cpu
