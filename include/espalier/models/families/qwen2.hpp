// SPDX-License-Identifier: Apache-2.0
// Qwen2 and Qwen2.5 (arXiv:2407.10671, arXiv:2412.15115): dense, with biases on q, k and v.
#pragma once

#include <espalier/models/families/common.hpp>

namespace espalier::families {

[[nodiscard]] const Family& qwen2();

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline DecoderConfig read_qwen2(const ConfigReader& json) {
  DecoderConfig c = read_common(json, qwen2().names, {.max_positions = 32768, .kv_heads = 32});
  c.attention.qkv_bias = true;
  read_qwen_windows(json, c);
  return c;
}

inline void write_qwen2(const DecoderConfig& c, std::string_view dtype, ConfigWriter& to) {
  write_common(c, qwen2(), dtype, to);
}

}  // namespace detail

ESP_INLINE const Family& qwen2() {
  static const auto* family = new Family{.model_type = "qwen2",
                                         .architecture = "Qwen2ForCausalLM",
                                         .names = dense_names(),
                                         .read = detail::read_qwen2,
                                         .write = detail::write_qwen2};
  return *family;
}

inline const FamilyRegistration kQwen2(qwen2());

}  // namespace espalier::families
#endif
