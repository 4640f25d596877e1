// SPDX-License-Identifier: Apache-2.0
// gpt-oss-20b and 120b (arXiv:2508.10925): sinks, windows in every other layer, biases everywhere,
// experts with a clamped SwiGLU, stored transposed with gate and up interleaved by columns. The
// released MXFP4 files can be pruned; computing needs a bf16 version.
#pragma once

#include <espalier/models/families/common.hpp>

namespace espalier::families {

[[nodiscard]] const Family& gpt_oss();

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline TensorNames gpt_oss_names() {
  return dense_names().with({{Part::sinks, "model.layers.{l}.self_attn.sinks"},
                             {Part::router, "model.layers.{l}.mlp.router.weight"},
                             {Part::experts_gate_up, "model.layers.{l}.mlp.experts.gate_up_proj"},
                             {Part::experts_down, "model.layers.{l}.mlp.experts.down_proj"},
                             // Modules for adapters; on disk the two tensors above hold all
                             // experts.
                             {Part::expert_gate, "model.layers.{l}.mlp.experts.{e}.gate_proj"},
                             {Part::expert_up, "model.layers.{l}.mlp.experts.{e}.up_proj"},
                             {Part::expert_down, "model.layers.{l}.mlp.experts.{e}.down_proj"}});
}

inline DecoderConfig read_gpt_oss(const ConfigReader& json) {
  DecoderConfig c = read_common(json, gpt_oss().names,
                                {.rms_norm_eps = 1e-5,
                                 .rope_theta = 150000,
                                 .max_positions = 131072,
                                 .kv_heads = 8,
                                 .head_dim = 64});
  c.attention.qkv_bias = c.attention.o_bias = json.truth_or("attention_bias", true);
  c.attention.sinks = true;
  c.attention.window = json.present("sliding_window") ? 0 : 128;
  read_windows(json, c);
  if (c.attention.window > 0 && c.full_layers.empty()) {
    for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) c.full_layers.push_back(l % 2 == 1);
  }
  read_mixture(json, gpt_oss().expert_keys, "intermediate_size", c);
  c.mixture.router_bias = c.mixture.expert_bias = true;
  c.mixture.storage = ExpertStorage::interleaved;
  c.mixture.activation = {true, json.number_or("swiglu_alpha", 1.702),
                          json.number_or("swiglu_limit", 7)};
  return c;
}

inline void write_gpt_oss(const DecoderConfig& c, std::string_view dtype, ConfigWriter& to) {
  write_common_of_mixture(c, gpt_oss(), dtype, to);
  to.set_truth("attention_bias", c.attention.o_bias);
  to.set_integer("num_local_experts", c.mixture.experts);
  to.set_integer("num_experts_per_tok", c.mixture.router.top_k);
  to.set_number("router_aux_loss_coef", c.router_aux_loss_coef);
  to.set_number("swiglu_limit", c.mixture.activation.limit);
  to.set_integer("sliding_window", c.attention.window);
  std::vector<std::string> types;
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) {
    types.push_back(c.window(l) > 0 ? "sliding_attention" : "full_attention");
  }
  to.set_texts("layer_types", types);
}

}  // namespace detail

ESP_INLINE const Family& gpt_oss() {
  static const auto* family = new Family{.model_type = "gpt_oss",
                                         .architecture = "GptOssForCausalLM",
                                         .names = detail::gpt_oss_names(),
                                         .expert_keys = {"num_local_experts", "num_experts"},
                                         .read = detail::read_gpt_oss,
                                         .write = detail::write_gpt_oss};
  return *family;
}

inline const FamilyRegistration kGptOss(gpt_oss());

}  // namespace espalier::families
#endif
