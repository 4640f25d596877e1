// SPDX-License-Identifier: Apache-2.0
// GLM-4.5, 4.5-Air and 4.6 (arXiv:2508.06471): grouped-query attention with rotary positions
// on half of each head, and the router of DeepSeek-V3.
#pragma once

#include <espalier/models/families/common.hpp>

namespace espalier::families {

[[nodiscard]] const Family& glm4_moe();

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline DecoderConfig read_glm4_moe(const ConfigReader& json) {
  DecoderConfig c = read_common(json, glm4_moe().names,
                                {.rms_norm_eps = 1e-5, .max_positions = 131072, .kv_heads = 8});
  if (!json.has("partial_rotary_factor") && !json.has("rope_parameters.partial_rotary_factor")) {
    c.attention.rope.dims = c.attention.head_dim / 4 * 2;  // half, as transformers has it
  }
  c.attention.qkv_bias = json.truth_or("attention_bias", false);
  c.attention.q_k_norm = json.truth_or("use_qk_norm", false);
  read_deepseek_mixture(json, glm4_moe(), c);
  read_first_dense(json, 1, c);
  read_sigmoid_router(json, c);
  return c;
}

inline void write_glm4_moe(const DecoderConfig& c, std::string_view dtype, ConfigWriter& to) {
  write_common(c, glm4_moe(), dtype, to);
  to.set_truth("attention_bias", c.attention.qkv_bias);
  const std::int64_t rotated = c.attention.rope.dims;
  to.set_number(
      "partial_rotary_factor",
      rotated > 0 ? static_cast<double>(rotated) / static_cast<double>(c.attention.head_dim) : 1.0);
  to.set_truth("use_qk_norm", c.attention.q_k_norm);
  write_deepseek_mixture(c, to);
}

}  // namespace detail

ESP_INLINE const Family& glm4_moe() {
  static const auto* family =
      new Family{.model_type = "glm4_moe",
                 .architecture = "Glm4MoeForCausalLM",
                 .names = deepseek_names(),
                 .expert_keys = {"n_routed_experts", "num_local_experts", "num_experts"},
                 .groups_key = "n_group",
                 .top_groups_key = "topk_group",
                 .mtp_key = "num_nextn_predict_layers",
                 .read = detail::read_glm4_moe,
                 .write = detail::write_glm4_moe};
  return *family;
}

inline const FamilyRegistration kGlm4Moe(glm4_moe());

}  // namespace espalier::families
#endif
