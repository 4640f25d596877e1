// SPDX-License-Identifier: Apache-2.0
// What a module shows of itself: its trainable leaves by name, in a fixed order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/autograd/var.hpp>

namespace espalier {

struct NamedParameter {
  std::string name;  // as Hugging Face names it, e.g. model.layers.0.self_attn.q_proj.lora_A.weight
  AnyVar var;
};

/// A random stream of its own for every name, so that a draw does not depend on the order of
/// modules.
[[nodiscard]] inline std::uint64_t stream_of(std::string_view name) {
  std::uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

}  // namespace espalier
