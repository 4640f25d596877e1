// SPDX-License-Identifier: Apache-2.0
// Qwen3 (arXiv:2505.09388): dense, with a norm of queries and keys per head.
#pragma once

#include <espalier/models/families/common.hpp>

namespace espalier::families {

[[nodiscard]] const Family& qwen3();

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline DecoderConfig read_qwen3(const ConfigReader& json) {
  DecoderConfig c =
      read_common(json, qwen3().names, {.max_positions = 32768, .kv_heads = 32, .head_dim = 128});
  c.attention.qkv_bias = c.attention.o_bias = json.truth_or("attention_bias", false);
  c.attention.q_k_norm = true;
  read_qwen_windows(json, c);
  return c;
}

inline void write_qwen3(const DecoderConfig& c, std::string_view dtype, ConfigWriter& to) {
  write_common(c, qwen3(), dtype, to);
  to.set_truth("attention_bias", c.attention.o_bias);
}

}  // namespace detail

ESP_INLINE const Family& qwen3() {
  static const auto* family = new Family{.model_type = "qwen3",
                                         .architecture = "Qwen3ForCausalLM",
                                         .names = dense_names(),
                                         .upcycles_to = "qwen3_moe",
                                         .read = detail::read_qwen3,
                                         .write = detail::write_qwen3};
  return *family;
}

inline const FamilyRegistration kQwen3(qwen3());

}  // namespace espalier::families
#endif
