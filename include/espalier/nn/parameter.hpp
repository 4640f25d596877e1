// SPDX-License-Identifier: Apache-2.0
// A module's named tensors, in a fixed order: those that are trained, or all of them. Each module
// has `collect(out, listed)`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <espalier/autograd/var.hpp>

namespace espalier {

struct NamedParameter {
  std::string name;  // as Hugging Face names it, e.g. model.layers.0.self_attn.q_proj.lora_A.weight
  AnyVar var;

  /// Does it get a gradient?
  bool trained() const { return var.requires_grad(); }
};

/// Which tensors of a module `collect` lists.
enum class Listed {
  trained,  // what an optimizer updates
  all       // frozen ones too: what a saved model needs
};

/// Appends one tensor of a module, unless it is empty or not asked for.
inline void collect_tensor(std::vector<NamedParameter>& out, Listed listed, std::string name,
                           const AnyVar& var) {
  if (var && (listed == Listed::all || var.requires_grad())) out.push_back({std::move(name), var});
}

/// A separate random stream for every name, so that draws do not depend on the order of modules.
[[nodiscard]] inline std::uint64_t stream_of(std::string_view name) {
  std::uint64_t h = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : name) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return h;
}

}  // namespace espalier
