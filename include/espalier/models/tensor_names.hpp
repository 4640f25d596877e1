// SPDX-License-Identifier: Apache-2.0
// The role of each tensor of a model, and its name on disk in each family.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>

namespace espalier {

/// The role of a tensor.
enum class Part : std::uint8_t {
  embedding,
  // attention
  input_norm,
  q,
  k,
  v,
  o,
  q_norm,
  k_norm,
  sinks,
  // latent attention: low-rank projections of queries, keys and values
  q_a,
  q_a_norm,
  q_b,
  kv_a,
  kv_a_norm,
  kv_b,
  // feed-forward
  post_norm,
  gate,
  up,
  down,
  // mixture of experts
  router,
  selection_bias,
  expert_gate,
  expert_up,
  expert_down,
  experts_gate_up,  // of all experts in one tensor, as some families store them
  experts_down,
  shared_gate,
  shared_up,
  shared_down,
  shared_router,
  // after the last layer
  final_norm,
  head,
};

/// A tensor's name with {l} for the layer's number and {e} for the expert's. The text must outlive
/// its users; normally it is a literal.
struct NamePattern {
  Part part;
  std::string_view text;
};

/// A synonym of a target.
struct TargetAlias {
  std::string_view alias, meaning;
};

struct TensorNames {
  /// One per part. The experts' matrices are listed in their order on disk.
  std::vector<NamePattern> patterns;
  /// Names of targets for users and adapters of this family, where they differ: {"w1", "gate"}.
  std::span<const TargetAlias> target_aliases = {};

  /// Empty where the family has no such part.
  ESP_ON_DEMAND ESP_INLINE std::string_view pattern(Part part) const {
    for (const NamePattern& p : patterns) {
      if (p.part == part) return p.text;
    }
    return {};
  }
  /// @throws Error where the family has no such part
  ESP_ON_DEMAND std::string of(Part part, std::int64_t layer = -1, std::int64_t expert = -1) const;
  /// The name without ".weight": that of the module.
  ESP_ON_DEMAND ESP_INLINE std::string module(Part part, std::int64_t layer,
                                              std::int64_t expert = -1) const {
    std::string name = of(part, layer, expert);
    if (name.ends_with(".weight")) name.resize(name.size() - 7);
    return name;
  }
  /// The name of the bias beside a weight.
  ESP_ON_DEMAND ESP_INLINE std::string bias(Part part, std::int64_t layer,
                                            std::int64_t expert = -1) const {
    const std::string name = of(part, layer, expert);
    return name.ends_with(".weight") ? name.substr(0, name.size() - 6) + "bias" : name + "_bias";
  }
  /// A copy in which `other` replaces the patterns of the same parts.
  ESP_ON_DEMAND ESP_INLINE TensorNames with(const std::vector<NamePattern>& other) const {
    TensorNames names = *this;
    for (const NamePattern& o : other) {
      bool known = false;
      for (NamePattern& p : names.patterns) {
        if (p.part == o.part) p.text = o.text, known = true;
      }
      if (!known) names.patterns.push_back(o);
    }
    return names;
  }
};

/// The names common to Llama and its descendants: embedding, attention, feed-forward, norms.
ESP_ON_DEMAND [[nodiscard]] ESP_INLINE TensorNames dense_names() {
  return {{{Part::embedding, "model.embed_tokens.weight"},
           {Part::input_norm, "model.layers.{l}.input_layernorm.weight"},
           {Part::q, "model.layers.{l}.self_attn.q_proj.weight"},
           {Part::k, "model.layers.{l}.self_attn.k_proj.weight"},
           {Part::v, "model.layers.{l}.self_attn.v_proj.weight"},
           {Part::o, "model.layers.{l}.self_attn.o_proj.weight"},
           {Part::q_norm, "model.layers.{l}.self_attn.q_norm.weight"},
           {Part::k_norm, "model.layers.{l}.self_attn.k_norm.weight"},
           {Part::q_a, "model.layers.{l}.self_attn.q_a_proj.weight"},
           {Part::q_a_norm, "model.layers.{l}.self_attn.q_a_layernorm.weight"},
           {Part::q_b, "model.layers.{l}.self_attn.q_b_proj.weight"},
           {Part::kv_a, "model.layers.{l}.self_attn.kv_a_proj_with_mqa.weight"},
           {Part::kv_a_norm, "model.layers.{l}.self_attn.kv_a_layernorm.weight"},
           {Part::kv_b, "model.layers.{l}.self_attn.kv_b_proj.weight"},
           {Part::post_norm, "model.layers.{l}.post_attention_layernorm.weight"},
           {Part::gate, "model.layers.{l}.mlp.gate_proj.weight"},
           {Part::up, "model.layers.{l}.mlp.up_proj.weight"},
           {Part::down, "model.layers.{l}.mlp.down_proj.weight"},
           {Part::final_norm, "model.norm.weight"},
           {Part::head, "lm_head.weight"}}};
}

/// dense_names and the mixture of Qwen, OLMoE, DeepSeek and GLM.
ESP_ON_DEMAND [[nodiscard]] ESP_INLINE TensorNames qwen_moe_names() {
  return dense_names().with(
      {{Part::router, "model.layers.{l}.mlp.gate.weight"},
       {Part::expert_gate, "model.layers.{l}.mlp.experts.{e}.gate_proj.weight"},
       {Part::expert_up, "model.layers.{l}.mlp.experts.{e}.up_proj.weight"},
       {Part::expert_down, "model.layers.{l}.mlp.experts.{e}.down_proj.weight"}});
}

/// qwen_moe_names and the shared experts of DeepSeek and GLM.
ESP_ON_DEMAND [[nodiscard]] ESP_INLINE TensorNames deepseek_names() {
  return qwen_moe_names().with(
      {{Part::selection_bias, "model.layers.{l}.mlp.gate.e_score_correction_bias"},
       {Part::shared_gate, "model.layers.{l}.mlp.shared_experts.gate_proj.weight"},
       {Part::shared_up, "model.layers.{l}.mlp.shared_experts.up_proj.weight"},
       {Part::shared_down, "model.layers.{l}.mlp.shared_experts.down_proj.weight"}});
}

ESP_ON_DEMAND [[nodiscard]] ESP_INLINE TensorNames mixtral_names() {
  TensorNames names = dense_names().with(
      {{Part::router, "model.layers.{l}.block_sparse_moe.gate.weight"},
       {Part::expert_gate, "model.layers.{l}.block_sparse_moe.experts.{e}.w1.weight"},
       {Part::expert_down, "model.layers.{l}.block_sparse_moe.experts.{e}.w2.weight"},
       {Part::expert_up, "model.layers.{l}.block_sparse_moe.experts.{e}.w3.weight"}});
  static constexpr TargetAlias kAliases[] = {
      {"w1", "gate"}, {"w2", "down"}, {"w3", "up"}, {"gate", "router"}};
  names.target_aliases = kAliases;
  return names;
}

ESP_DEMANDED std::string TensorNames::of(Part part, std::int64_t layer, std::int64_t expert) const {
  const std::string_view text = pattern(part);
  ESP_REQUIRE(!text.empty(), Error, "tensor_names: this family has no name for part ",
              static_cast<int>(part));
  std::string name;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view next = text.substr(i, 3);
    if (next == "{l}" || next == "{e}") {
      name += std::to_string(next == "{l}" ? layer : expert);
      i += 2;
    } else {
      name += text[i];
    }
  }
  return name;
}

}  // namespace espalier
