// SPDX-License-Identifier: Apache-2.0
// DeepSeek-V2 and V2-Lite (arXiv:2405.04434): latent attention, a mixture with shared experts
// after the dense layers, and a softmax router without renormalisation.
#pragma once

#include <espalier/models/families/common.hpp>

namespace espalier::families {

[[nodiscard]] const Family& deepseek_v2();

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline DecoderConfig read_deepseek_v2(const ConfigReader& json) {
  DecoderConfig c = read_common(json, deepseek_v2().names, {.bos = 1, .eos = {2}});
  read_latent_attention(json, c);
  read_deepseek_mixture(json, deepseek_v2(), c);
  read_first_dense(json, 0, c);
  const std::string method = json.text_or("topk_method", "greedy");
  ESP_REQUIRE(method == "greedy" || method == "group_limited_greedy", UnsupportedError,
              json.where("topk_method"), ": \"", method,
              "\" is not supported; expected \"greedy\" or \"group_limited_greedy\"");
  RouterRule& rule = c.mixture.router;
  rule.renormalize = false;  // as in transformers, which ignores norm_topk_prob
  if (method == "greedy") rule.groups = rule.top_groups = 1;
  return c;
}

inline void write_deepseek_v2(const DecoderConfig& c, std::string_view dtype, ConfigWriter& to) {
  write_common(c, deepseek_v2(), dtype, to);
  write_latent_attention(c, to);
  write_deepseek_mixture(c, to);
  to.set_text("topk_method", c.mixture.router.groups > 1 ? "group_limited_greedy" : "greedy");
}

}  // namespace detail

ESP_INLINE const Family& deepseek_v2() {
  static const auto* family =
      new Family{.model_type = "deepseek_v2",
                 .architecture = "DeepseekV2ForCausalLM",
                 .names = deepseek_names(),
                 .expert_keys = {"n_routed_experts", "num_local_experts", "num_experts"},
                 .groups_key = "n_group",
                 .top_groups_key = "topk_group",
                 .read = detail::read_deepseek_v2,
                 .write = detail::write_deepseek_v2};
  return *family;
}

inline const FamilyRegistration kDeepseekV2(deepseek_v2());

}  // namespace espalier::families
#endif
