// SPDX-License-Identifier: Apache-2.0
// Mistral 7B (Jiang et al. 2023, arXiv:2310.06825): dense, with a sliding window.
#pragma once

#include <espalier/models/families/common.hpp>

namespace espalier::families {

[[nodiscard]] const Family& mistral();

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline DecoderConfig read_mistral(const ConfigReader& json) {
  DecoderConfig c = read_common(json, mistral().names,
                                {.max_positions = 131072, .kv_heads = 8, .bos = 1, .eos = {2}});
  // Absent it is 4096, null it is none.
  c.attention.window = json.present("sliding_window") ? 0 : 4096;
  if (json.has("sliding_window")) c.attention.window = json.positive("sliding_window");
  return c;
}

inline void write_mistral(const DecoderConfig& c, std::string_view dtype, ConfigWriter& to) {
  write_common(c, mistral(), dtype, to);
  write_window(c, to);
}

}  // namespace detail

ESP_INLINE const Family& mistral() {
  static const auto* family = new Family{.model_type = "mistral",
                                         .architecture = "MistralForCausalLM",
                                         .names = dense_names(),
                                         .upcycles_to = "mixtral",
                                         .read = detail::read_mistral,
                                         .write = detail::write_mistral};
  return *family;
}

inline const FamilyRegistration kMistral(mistral());

}  // namespace espalier::families
#endif
