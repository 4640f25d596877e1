// SPDX-License-Identifier: Apache-2.0
// OLMoE-1B-7B (arXiv:2409.02060): queries and keys are normalised over all heads together; the
// routing weights are not renormalised.
#pragma once

#include <espalier/models/families/common.hpp>

namespace espalier::families {

[[nodiscard]] const Family& olmoe();

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline DecoderConfig read_olmoe(const ConfigReader& json) {
  refuse_true(json, {"attention_bias"}, "biases are not supported");
  DecoderConfig c = read_common(json, olmoe().names,
                                {.rms_norm_eps = 1e-5, .max_positions = 4096, .eos = {50279}});
  c.attention.q_k_norm = c.attention.norm_whole = true;
  c.attention.clip = json.number_or("clip_qkv", 0);
  read_mixture(json, olmoe().expert_keys, "intermediate_size", c);
  c.mixture.router.renormalize = json.truth_or("norm_topk_prob", false);
  return c;
}

inline void write_olmoe(const DecoderConfig& c, std::string_view dtype, ConfigWriter& to) {
  write_common_of_mixture(c, olmoe(), dtype, to);
  c.attention.clip > 0 ? to.set_number("clip_qkv", c.attention.clip) : to.set_null("clip_qkv");
  to.set_integer("num_experts", c.mixture.experts);
  to.set_integer("num_experts_per_tok", c.mixture.router.top_k);
  to.set_truth("norm_topk_prob", c.mixture.router.renormalize);
  to.set_number("router_aux_loss_coef", c.router_aux_loss_coef);
}

}  // namespace detail

ESP_INLINE const Family& olmoe() {
  static const auto* family = new Family{.model_type = "olmoe",
                                         .architecture = "OlmoeForCausalLM",
                                         .names = qwen_moe_names(),
                                         .expert_keys = {"num_experts", "num_local_experts"},
                                         .read = detail::read_olmoe,
                                         .write = detail::write_olmoe};
  return *family;
}

inline const FamilyRegistration kOlmoe(olmoe());

}  // namespace espalier::families
#endif
