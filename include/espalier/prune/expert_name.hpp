// SPDX-License-Identifier: Apache-2.0
// Which tensors of a checkpoint, or modules of an adapter, a plan touches, and what they are called
// afterwards:
//   model.layers.3.block_sparse_moe.experts.5.w1.weight  -> ...experts.2.w1.weight, or dropped
//   model.layers.3.block_sparse_moe.gate.weight          -> the rows of the kept experts
// Only whole path components count: a `gate_proj` is no gate.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/expert_name.hpp is host-only; include it from a .cpp"
#endif

#include <charconv>
#include <optional>

#include <espalier/prune/plan.hpp>

namespace espalier::prune {

struct ExpertName {
  std::size_t layer = 0;
  int expert = -1;   // -1: the router
  std::string rest;  // "w1.weight", "weight", "w2.lora_A.weight"
};

[[nodiscard]] inline std::string moe_prefix(std::size_t layer) {
  return "model.layers." + std::to_string(layer) + ".block_sparse_moe.";
}
[[nodiscard]] inline std::string expert_prefix(std::size_t layer, int expert) {
  return moe_prefix(layer) + "experts." + std::to_string(expert) + ".";
}

/// None for a tensor outside the mixture block.
[[nodiscard]] inline std::optional<ExpertName> parse_expert_name(std::string_view name) {
  const auto skip = [&](std::string_view word) {
    const bool there = name.substr(0, word.size()) == word;
    if (there) name.remove_prefix(word.size());
    return there;
  };
  const auto number = [&](auto& value) {
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), value);
    if (error != std::errc()) return false;
    name.remove_prefix(static_cast<std::size_t>(end - name.data()));
    return true;
  };
  ExpertName found;
  if (!skip("model.layers.") || !number(found.layer) || !skip(".block_sparse_moe.")) return {};
  if (skip("experts.")) {
    if (!number(found.expert) || found.expert < 0 || !skip(".")) return {};
  } else if (!skip("gate.")) {
    return {};
  }
  found.rest = std::string(name);
  return found;
}

/// The name in the pruned model; none for a part of a dropped expert.
[[nodiscard]] inline std::optional<std::string> pruned_name(const std::string& name,
                                                            const Plan& plan) {
  const std::optional<ExpertName> part = parse_expert_name(name);
  if (!part || part->expert < 0 || part->layer >= plan.keep.size()) return name;
  if (!plan.keeps(part->layer, part->expert)) return std::nullopt;
  return expert_prefix(part->layer, plan.new_id(part->layer, part->expert)) + part->rest;
}

}  // namespace espalier::prune
