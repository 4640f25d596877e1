// SPDX-License-Identifier: Apache-2.0
// Mixtral (Jiang et al. 2024, arXiv:2401.04088).
#pragma once

#include <espalier/models/families/common.hpp>

namespace espalier::families {

[[nodiscard]] const Family& mixtral();

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline DecoderConfig read_mixtral(const ConfigReader& json) {
  refuse_true(json, {"attention_bias", "mlp_bias"}, "biases are not supported");
  DecoderConfig c = read_common(json, mixtral().names,
                                {.rms_norm_eps = 1e-5,
                                 .rope_theta = 1e6,
                                 .max_positions = 131072,
                                 .kv_heads = 8,
                                 .bos = 1,
                                 .eos = {2}});
  read_mixture(json, mixtral().expert_keys, "intermediate_size", c);
  if (json.has("sliding_window")) c.attention.window = json.positive("sliding_window");
  return c;
}

inline void write_mixtral(const DecoderConfig& c, std::string_view dtype, ConfigWriter& to) {
  write_common_of_mixture(c, mixtral(), dtype, to);
  to.set_integer("num_experts_per_tok", c.mixture.router.top_k);
  to.set_integer("num_local_experts", c.mixture.experts);
  to.set_truth("output_router_logits", false);
  to.set_number("router_aux_loss_coef", c.router_aux_loss_coef);
  to.set_number("router_jitter_noise", 0.0);
  write_window(c, to);
}

}  // namespace detail

ESP_INLINE const Family& mixtral() {
  static const auto* family = new Family{.model_type = "mixtral",
                                         .architecture = "MixtralForCausalLM",
                                         .names = mixtral_names(),
                                         .expert_keys = {"num_local_experts", "num_experts"},
                                         .read = detail::read_mixtral,
                                         .write = detail::write_mixtral};
  return *family;
}

inline const FamilyRegistration kMixtral(mixtral());

}  // namespace espalier::families
#endif
