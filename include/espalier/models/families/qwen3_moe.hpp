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
  DecoderConfig c = read_common(json, qwen3_moe().names, {.max_positions = 32768, .kv_heads = 4});
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
  write_qwen_mixture(c, to);
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
