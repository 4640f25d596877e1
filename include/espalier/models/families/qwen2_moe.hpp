// SPDX-License-Identifier: Apache-2.0
// Qwen1.5-MoE-A2.7B and Qwen2-57B-A14B (arXiv:2407.10671): Qwen2 with a mixture, and a shared
// expert with a sigmoid router of its own.
#pragma once

#include <espalier/models/families/common.hpp>

namespace espalier::families {

[[nodiscard]] const Family& qwen2_moe();

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline DecoderConfig read_qwen2_moe(const ConfigReader& json) {
  DecoderConfig c = read_common(json, qwen2_moe().names, {.max_positions = 32768, .kv_heads = 16});
  c.attention.qkv_bias = json.truth_or("qkv_bias", true);
  read_qwen_windows(json, c);
  read_mixture(json, qwen2_moe().expert_keys, "moe_intermediate_size", c);
  read_qwen_sparse_layers(json, c);
  c.mixture.router.renormalize = json.truth_or("norm_topk_prob", false);
  c.mixture.shared_width = json.positive_or("shared_expert_intermediate_size", 5632);
  c.mixture.shared_router = true;
  return c;
}

inline void write_qwen2_moe(const DecoderConfig& c, std::string_view dtype, ConfigWriter& to) {
  write_common(c, qwen2_moe(), dtype, to);
  to.set_truth("qkv_bias", c.attention.qkv_bias);
  write_qwen_mixture(c, to);
  to.set_integer("shared_expert_intermediate_size", c.mixture.shared_width);
}

}  // namespace detail

ESP_INLINE const Family& qwen2_moe() {
  static const auto* family =
      new Family{.model_type = "qwen2_moe",
                 .architecture = "Qwen2MoeForCausalLM",
                 .names = qwen_moe_names().with(
                     {{Part::shared_gate, "model.layers.{l}.mlp.shared_expert.gate_proj.weight"},
                      {Part::shared_up, "model.layers.{l}.mlp.shared_expert.up_proj.weight"},
                      {Part::shared_down, "model.layers.{l}.mlp.shared_expert.down_proj.weight"},
                      {Part::shared_router, "model.layers.{l}.mlp.shared_expert_gate.weight"}}),
                 .expert_keys = {"num_experts", "num_local_experts"},
                 .read = detail::read_qwen2_moe,
                 .write = detail::write_qwen2_moe};
  return *family;
}

inline const FamilyRegistration kQwen2Moe(qwen2_moe());

}  // namespace espalier::families
#endif
