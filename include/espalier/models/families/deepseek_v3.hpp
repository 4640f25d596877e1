// SPDX-License-Identifier: Apache-2.0
// DeepSeek-V3 and R1 (arXiv:2412.19437), Moonlight, Kimi-K2: a sigmoid router with a selection
// bias and groups.
#pragma once

#include <espalier/models/families/common.hpp>

namespace espalier::families {

[[nodiscard]] const Family& deepseek_v3();

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline DecoderConfig read_deepseek_v3(const ConfigReader& json) {
  DecoderConfig c = read_common(json, deepseek_v3().names, {.max_positions = 4096, .eos = {1}});
  if (!json.present("bos_token_id")) c.bos_token_id = 0;
  read_latent_attention(json, c);
  read_deepseek_mixture(json, deepseek_v3(), c);
  read_first_dense(json, 3, c);
  read_sigmoid_router(json, c);
  return c;
}

inline void write_deepseek_v3(const DecoderConfig& c, std::string_view dtype, ConfigWriter& to) {
  write_common(c, deepseek_v3(), dtype, to);
  write_latent_attention(c, to);
  write_deepseek_mixture(c, to);
}

}  // namespace detail

ESP_INLINE const Family& deepseek_v3() {
  static const auto* family =
      new Family{.model_type = "deepseek_v3",
                 .architecture = "DeepseekV3ForCausalLM",
                 .names = deepseek_names(),
                 .expert_keys = {"n_routed_experts", "num_local_experts", "num_experts"},
                 .groups_key = "n_group",
                 .top_groups_key = "topk_group",
                 .mtp_key = "num_nextn_predict_layers",
                 .read = detail::read_deepseek_v3,
                 .write = detail::write_deepseek_v3};
  return *family;
}

inline const FamilyRegistration kDeepseekV3(deepseek_v3());

}  // namespace espalier::families
#endif
