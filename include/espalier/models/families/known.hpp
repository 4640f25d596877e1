// SPDX-License-Identifier: Apache-2.0
// Mixtures without a forward pass here. Their experts are known by name, so they can be inspected,
// pruned and verified, and scored by criteria that need no activations. Also model types that are
// refused altogether, with the reason.
#pragma once

#include <espalier/models/families/common.hpp>

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline Family known(const char* model_type, const char* architecture,
                    std::vector<std::string> expert_keys, const std::vector<NamePattern>& names) {
  Family family;
  family.model_type = model_type;
  family.architecture = architecture;
  family.names = qwen_moe_names().with(names);
  family.expert_keys = std::move(expert_keys);
  return family;
}

inline Family refused(const char* model_type, const char* why) {
  Family family;
  family.model_type = model_type;
  family.refusal = why;
  return family;
}

/// `nested`: as the text model of a larger one, else by itself.
inline Family qwen3_5_moe(bool nested) {
  const char* model_type = nested ? "qwen3_5_moe" : "qwen3_5_moe_text";
  const char* architecture =
      nested ? "Qwen3_5MoeForConditionalGeneration" : "Qwen3_5MoeForCausalLM";
  Family qwen =
      (nested ? known(model_type, architecture,
                      {"text_config.num_experts", "text_config.num_local_experts"},
                      {{Part::router, "model.language_model.layers.{l}.mlp.gate.weight"},
                       {Part::expert_gate,
                        "model.language_model.layers.{l}.mlp.experts.{e}.gate_proj.weight"},
                       {Part::expert_up,
                        "model.language_model.layers.{l}.mlp.experts.{e}.up_proj.weight"},
                       {Part::expert_down,
                        "model.language_model.layers.{l}.mlp.experts.{e}.down_proj.weight"},
                       {Part::experts_gate_up,
                        "model.language_model.layers.{l}.mlp.experts.gate_up_proj"}})
              : known(model_type, architecture, {"num_experts", "num_local_experts"},
                      {{Part::experts_gate_up, "model.layers.{l}.mlp.experts.gate_up_proj"}}));
  qwen.mtp_prefixes = {"mtp."};
  if (nested) qwen.top_k_keys = {"text_config.num_experts_per_tok"};
  return qwen;
}

/// `nested`: as the text model of a larger one, else by itself.
inline Family gemma4(bool nested) {
  const char* model_type = nested ? "gemma4" : "gemma4_text";
  Family gemma =
      (nested
           ? known(
                 model_type, "Gemma4ForConditionalGeneration", {"text_config.num_experts"},
                 {{Part::router, "model.language_model.layers.{l}.router.proj.weight"},
                  {Part::expert_gate,
                   "model.language_model.layers.{l}.experts.{e}.gate_proj.weight"},
                  {Part::expert_up, "model.language_model.layers.{l}.experts.{e}.up_proj.weight"},
                  {Part::expert_down,
                   "model.language_model.layers.{l}.experts.{e}.down_proj.weight"},
                  {Part::selection_bias, "model.language_model.layers.{l}.router.per_expert_scale"},
                  {Part::experts_gate_up, "model.language_model.layers.{l}.experts.gate_up_proj"},
                  {Part::experts_down, "model.language_model.layers.{l}.experts.down_proj"}})
           : known(model_type, "Gemma4ForCausalLM", {"num_experts"},
                   {{Part::router, "model.layers.{l}.router.proj.weight"},
                    {Part::expert_gate, "model.layers.{l}.experts.{e}.gate_proj.weight"},
                    {Part::expert_up, "model.layers.{l}.experts.{e}.up_proj.weight"},
                    {Part::expert_down, "model.layers.{l}.experts.{e}.down_proj.weight"},
                    {Part::selection_bias, "model.layers.{l}.router.per_expert_scale"},
                    {Part::experts_gate_up, "model.layers.{l}.experts.gate_up_proj"},
                    {Part::experts_down, "model.layers.{l}.experts.down_proj"}}));
  gemma.top_k_keys = {nested ? "text_config.top_k_experts" : "top_k_experts"};
  return gemma;
}

/// `nested`: as the text model of a larger one, else by itself.
inline Family llama4(bool nested) {
  const char* model_type = nested ? "llama4" : "llama4_text";
  Family llama =
      (nested
           ? known(model_type, "Llama4ForConditionalGeneration", {"text_config.num_local_experts"},
                   {{Part::router, "language_model.model.layers.{l}.feed_forward.router.weight"},
                    {Part::expert_gate,
                     "language_model.model.layers.{l}.feed_forward.experts.{e}.gate_proj.weight"},
                    {Part::expert_up,
                     "language_model.model.layers.{l}.feed_forward.experts.{e}.up_proj.weight"},
                    {Part::expert_down,
                     "language_model.model.layers.{l}.feed_forward.experts.{e}.down_proj.weight"},
                    {Part::experts_gate_up,
                     "language_model.model.layers.{l}.feed_forward.experts.gate_up_proj"},
                    {Part::experts_down,
                     "language_model.model.layers.{l}.feed_forward.experts.down_proj"}})
           : known(
                 model_type, "Llama4ForCausalLM", {"num_local_experts"},
                 {{Part::router, "model.layers.{l}.feed_forward.router.weight"},
                  {Part::expert_gate, "model.layers.{l}.feed_forward.experts.{e}.gate_proj.weight"},
                  {Part::expert_up, "model.layers.{l}.feed_forward.experts.{e}.up_proj.weight"},
                  {Part::expert_down, "model.layers.{l}.feed_forward.experts.{e}.down_proj.weight"},
                  {Part::experts_gate_up, "model.layers.{l}.feed_forward.experts.gate_up_proj"},
                  {Part::experts_down, "model.layers.{l}.feed_forward.experts.down_proj"}}));
  if (nested) llama.top_k_keys = {"text_config.num_experts_per_tok"};
  return llama;
}

inline Family nemotron_h() {
  Family nemotron =
      known("nemotron_h", "NemotronHForCausalLM", {"n_routed_experts", "num_local_experts"},
            {{Part::router, "backbone.layers.{l}.mixer.gate.weight"},
             {Part::selection_bias, "backbone.layers.{l}.mixer.gate.e_score_correction_bias"},
             {Part::expert_up, "backbone.layers.{l}.mixer.experts.{e}.up_proj.weight"},
             {Part::expert_down, "backbone.layers.{l}.mixer.experts.{e}.down_proj.weight"}});
  std::erase_if(nemotron.names.patterns,
                [](const NamePattern& p) { return p.part == Part::expert_gate; });
  nemotron.groups_key = "n_group";
  nemotron.top_groups_key = "topk_group";
  nemotron.mtp_prefixes = {"mtp."};
  return nemotron;
}

inline Family ernie4_5_moe() {
  Family ernie =
      known("ernie4_5_moe", "Ernie4_5_MoeForCausalLM",
            {"moe_num_experts", "num_experts", "num_local_experts"},
            {{Part::selection_bias, "model.layers.{l}.mlp.moe_statics.e_score_correction_bias"}});
  ernie.selection_bias_axis = 1;
  ernie.top_k_keys = {"moe_k", "num_experts_per_tok"};
  return ernie;
}

inline std::vector<Family> known_families() {
  std::vector<Family> list;
  const auto add = [&](Family family) -> Family& { return list.emplace_back(std::move(family)); };
  const auto mixtral_like = mixtral_names().patterns;

  add(known("phimoe", "PhimoeForCausalLM", {"num_local_experts", "num_experts"}, mixtral_like));
  add(known("minimax_m2", "MiniMaxM2ForCausalLM", {"num_local_experts", "num_experts"},
            mixtral_like))
      .names = mixtral_names().with(
      {{Part::selection_bias, "model.layers.{l}.block_sparse_moe.e_score_correction_bias"}});
  add(known("lfm2_moe", "Lfm2MoeForCausalLM", {"num_experts", "num_local_experts"},
            {{Part::router, "model.layers.{l}.feed_forward.gate.weight"},
             {Part::selection_bias, "model.layers.{l}.feed_forward.expert_bias"},
             {Part::expert_gate, "model.layers.{l}.feed_forward.experts.{e}.w1.weight"},
             {Part::expert_up, "model.layers.{l}.feed_forward.experts.{e}.w3.weight"},
             {Part::expert_down, "model.layers.{l}.feed_forward.experts.{e}.w2.weight"}}));
  add(ernie4_5_moe());
  add(known("qwen3_next", "Qwen3NextForCausalLM", {"num_experts", "num_local_experts"}, {}))
      .mtp_prefixes = {"mtp."};
  for (const bool nested : {true, false}) add(qwen3_5_moe(nested));
  for (const bool nested : {true, false}) add(gemma4(nested));
  add(nemotron_h());
  for (const bool nested : {true, false}) add(llama4(nested));
  add(known("granitemoeshared", "GraniteMoeSharedForCausalLM", {"num_local_experts"},
            {{Part::router, "model.layers.{l}.block_sparse_moe.router.layer.weight"},
             {Part::experts_gate_up, "model.layers.{l}.block_sparse_moe.input_linear.weight"},
             {Part::experts_down, "model.layers.{l}.block_sparse_moe.output_linear.weight"}}));

  add(refused(
      "deepseek_v4",
      "its first layers route by a table from tokens to experts, which pruning would break"));
  for (const char* model_type : {"mistral4", "kimi_linear", "hy_v3", "hy_v4"}) {
    add(refused(model_type, "its layout is not known here"));
  }
  return list;
}

inline bool register_known_families() {
  static const auto* families = new std::vector<Family>(known_families());
  for (const Family& family : *families) espalier::detail::registered_families().push_back(&family);
  return true;
}
inline const bool known_families_registered = register_known_families();

}  // namespace detail

}  // namespace espalier::families
#endif
