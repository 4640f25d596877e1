// SPDX-License-Identifier: Apache-2.0
// Llama 2 and 3 (arXiv:2307.09288, arXiv:2407.21783), SmolLM2 and their like: dense.
#pragma once

#include <espalier/models/families/common.hpp>

namespace espalier::families {

[[nodiscard]] const Family& llama();

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline DecoderConfig read_llama(const ConfigReader& json) {
  DecoderConfig c = read_common(json, llama().names, {.bos = 1, .eos = {2}});
  c.attention.qkv_bias = c.attention.o_bias = json.truth_or("attention_bias", false);
  c.mlp_bias = json.truth_or("mlp_bias", false);
  return c;
}

inline void write_llama(const DecoderConfig& c, std::string_view dtype, ConfigWriter& to) {
  write_common(c, llama(), dtype, to);
  to.set_truth("attention_bias", c.attention.o_bias);
  to.set_truth("mlp_bias", c.mlp_bias);
}

}  // namespace detail

ESP_INLINE const Family& llama() {
  static const auto* family = new Family{.model_type = "llama",
                                         .architecture = "LlamaForCausalLM",
                                         .names = dense_names(),
                                         .upcycles_to = "mixtral",
                                         .read = detail::read_llama,
                                         .write = detail::write_llama};
  return *family;
}

inline const FamilyRegistration kLlama(llama());

}  // namespace espalier::families
#endif
