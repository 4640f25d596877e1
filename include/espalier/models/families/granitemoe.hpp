// SPDX-License-Identifier: Apache-2.0
// Granite 3 MoE 1B and 3B (Power scheduler, arXiv:2408.13359): multipliers at embedding, attention,
// residual stream and logits; experts in two tensors of a layer.
#pragma once

#include <espalier/models/families/common.hpp>

namespace espalier::families {

[[nodiscard]] const Family& granitemoe();

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline DecoderConfig read_granitemoe(const ConfigReader& json) {
  refuse_true(json, {"attention_bias"}, "biases are not supported");
  DecoderConfig c = read_common(json, granitemoe().names, {.bos = 1, .eos = {2}});
  read_mixture(json, granitemoe().expert_keys, "intermediate_size", c);
  c.mixture.storage = ExpertStorage::fused;
  c.embedding_multiplier = json.number_or("embedding_multiplier", 1);
  c.residual_multiplier = json.number_or("residual_multiplier", 1);
  c.logits_divisor = json.number_or("logits_scaling", 1);
  c.attention.scale = json.number_or("attention_multiplier", 1);
  return c;
}

inline void write_granitemoe(const DecoderConfig& c, std::string_view dtype, ConfigWriter& to) {
  write_common_of_mixture(c, granitemoe(), dtype, to);
  to.set_integer("num_local_experts", c.mixture.experts);
  to.set_integer("num_experts_per_tok", c.mixture.router.top_k);
  to.set_number("router_aux_loss_coef", c.router_aux_loss_coef);
  to.set_number("embedding_multiplier", c.embedding_multiplier);
  to.set_number("residual_multiplier", c.residual_multiplier);
  to.set_number("logits_scaling", c.logits_divisor);
  to.set_number("attention_multiplier", c.attention.scale);
}

}  // namespace detail

ESP_INLINE const Family& granitemoe() {
  static const auto* family = new Family{
      .model_type = "granitemoe",
      .architecture = "GraniteMoeForCausalLM",
      .names = qwen_moe_names().with(
          {{Part::router, "model.layers.{l}.block_sparse_moe.router.layer.weight"},
           {Part::experts_gate_up, "model.layers.{l}.block_sparse_moe.input_linear.weight"},
           {Part::experts_down, "model.layers.{l}.block_sparse_moe.output_linear.weight"},
           // Modules for adapters; on disk the two tensors above hold all experts.
           {Part::expert_gate, "model.layers.{l}.block_sparse_moe.experts.{e}.gate_proj"},
           {Part::expert_up, "model.layers.{l}.block_sparse_moe.experts.{e}.up_proj"},
           {Part::expert_down, "model.layers.{l}.block_sparse_moe.experts.{e}.down_proj"}}),
      .expert_keys = {"num_local_experts", "num_experts"},
      .read = detail::read_granitemoe,
      .write = detail::write_granitemoe};
  return *family;
}

inline const FamilyRegistration kGraniteMoe(granitemoe());

}  // namespace espalier::families
#endif
