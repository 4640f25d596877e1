// SPDX-License-Identifier: Apache-2.0
// Qwen3-30B-A3B, 235B-A22B and Coder (arXiv:2505.09388): Qwen3 with a mixture.
#pragma once

#include <espalier/models/families/common.hpp>

namespace espalier::families {

[[nodiscard]] const Family& qwen3_moe();

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline DecoderConfig read_qwen3_moe(const ConfigReader& json) {
  DecoderConfig c =
      read_common(json, qwen3_moe().names, {.max_positions = 32768, .kv_heads = 4});
  c.attention.qkv_bias = c.attention.o_bias = json.truth_or("attention_bias", false);
  c.attention.q_k_norm = true;
  if (json.truth_or("use_sliding_window", false)) read_windows(json, c);
  read_mixture(json, qwen3_moe().expert_keys, "moe_intermediate_size", c);
  read_qwen_sparse_layers(json, c);
  c.mixture.router.renormalize = json.truth_or("norm_topk_prob", false);
  return c;
}

inline void write_qwen3_moe(const DecoderConfig& c, std::string_view dtype, ConfigWriter& to) {
  write_common(c, qwen3_moe(), dtype, to);
  to.set_truth("attention_bias", c.attention.o_bias);
  to.set_integer("num_experts", c.mixture.experts);
  to.set_integer("num_experts_per_tok", c.mixture.router.top_k);
  to.set_integer("moe_intermediate_size", c.mixture.width);
  to.set_truth("norm_topk_prob", c.mixture.router.renormalize);
  to.set_integer("decoder_sparse_step", 1);
  std::vector<std::int64_t> dense;
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) {
    if (!c.has_mixture(l)) dense.push_back(l);
  }
  to.set_integers("mlp_only_layers", dense);
  to.set_number("router_aux_loss_coef", c.router_aux_loss_coef);
}

}  // namespace detail

ESP_INLINE const Family& qwen3_moe() {
  static const auto* family = new Family{.model_type = "qwen3_moe",
                                         .architecture = "Qwen3MoeForCausalLM",
                                         .names = qwen_moe_names(),
                                         .expert_keys = {"num_local_experts", "num_experts"},
                                         .read = detail::read_qwen3_moe,
                                         .write = detail::write_qwen3_moe};
  return *family;
}

inline const FamilyRegistration kQwen3Moe(qwen3_moe());

}  // namespace espalier::families
#endif
