// SPDX-License-Identifier: Apache-2.0
// Applies PEFT adapters to a model: checks that modules and shapes fit, converts rank, scale and
// targets to a LoraConfig, loads the values.
#pragma once

#ifdef __CUDACC__
#error "espalier/hub/adapter.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>

#include <espalier/io/adapter.hpp>
#include <espalier/models/decoder.hpp>

namespace espalier::hub {

/// Checks that every module of the adapter belongs to a matrix of this model and has its shape.
/// @throws FormatError naming the module
void check_adapter_fits(const io::Adapter& adapter, const DecoderConfig& model,
                        const std::filesystem::path& folder);

/// Converts rank, scale and targets of an adapter to the LoraConfig of a model.
/// @throws FormatError when modules differ in rank or alpha
[[nodiscard]] LoraConfig lora_config_of(const io::Adapter& adapter, const DecoderConfig& model,
                                        const std::string& path);

/// Names the modules of these targets as PEFT does: q_proj, w1, ... PEFT applies a target to every
/// module whose name ends in it. With transformers 5, PEFT reaches some modules as parameters only;
/// their names end in ".weight": "mlp.gate.weight" (see AdapterConfig::target_modules).
[[nodiscard]] std::vector<std::string> target_modules_of(const DecoderConfig& model,
                                                         const std::vector<std::string>& targets);

/// Copies the values of `adapter` into the LoRA parameters of a model.
/// @throws FormatError when adapter and model have different modules.
void load_adapter_values(const std::vector<NamedParameter>& parameters, const io::Adapter& adapter,
                         const std::string& path);

}  // namespace espalier::hub

#ifdef ESP_BODIES
namespace espalier::hub {

namespace detail {
/// "model.layers.0.self_attn.q_proj" -> "q_proj"
inline std::string last_component(const std::string& module) {
  return module.substr(module.rfind('.') + 1);
}
/// "model.layers.0.mlp.gate" -> "mlp.gate"
inline std::string within_layer(const std::string& module) {
  constexpr std::string_view kLayers = ".layers.";
  const std::size_t at = module.find(kLayers);
  if (at == std::string::npos) return module;
  return module.substr(module.find('.', at + kLayers.size()) + 1);
}
/// True if PEFT (0.21, with transformers 5.23) adapts this module only under target_parameters:
///  - PEFT fuses the experts of some families while it loads them, and applies the targets
///    gate_proj, up_proj and down_proj to the fused experts alone. It would skip the matrices of
///    the same names in dense layers and shared experts, with no more than a warning.
///  - A router is not a linear layer in transformers 5. PEFT adapts the routers of the fused
///    families and of Mixtral as modules, those of the families below as parameters.
inline bool is_parameter_of_peft(const DecoderConfig& model, Part part) {
  constexpr std::string_view kFused[] = {"qwen3_moe", "olmoe", "deepseek_v2", "deepseek_v3",
                                         "glm4_moe"};
  const bool fused =
      std::find(std::begin(kFused), std::end(kFused), model.model_type) != std::end(kFused);
  switch (part) {
    case Part::gate:
    case Part::up:
    case Part::down:
    case Part::shared_gate:
    case Part::shared_up:
    case Part::shared_down:
      return fused;
    case Part::router:
      return model.model_type == "gpt_oss" || model.model_type == "qwen2_moe";
    default:
      return false;
  }
}
inline std::map<std::string, LinearModule, std::less<>> modules_by_name(
    const DecoderConfig& model) {
  std::map<std::string, LinearModule, std::less<>> modules;
  for (LinearModule& m : linear_modules(model)) modules.emplace(m.name, m);
  return modules;
}
}  // namespace detail

ESP_INLINE void check_adapter_fits(const io::Adapter& adapter, const DecoderConfig& model,
                                   const std::filesystem::path& folder) {
  const auto modules = detail::modules_by_name(model);
  for (const auto& [module, f] : adapter.modules) {
    const auto it = modules.find(module);
    ESP_REQUIRE(it != modules.end(), FormatError, folder.string(), ": module \"", module,
                "\" is not in the model (", model.num_hidden_layers, " layers, ",
                model.mixture.experts, " experts); is this adapter of another model?");
    const LinearModule& m = it->second;
    ESP_REQUIRE(f.b.shape(0) == m.out && f.a.shape(1) == m.in, FormatError, folder.string(),
                ": module \"", module, "\" maps ", f.a.shape(1), " to ", f.b.shape(0),
                " values, the model's matrix ", m.in, " to ", m.out);
  }
}

ESP_INLINE LoraConfig lora_config_of(const io::Adapter& adapter, const DecoderConfig& model,
                                     const std::string& path) {
  LoraConfig lora;
  lora.r = static_cast<int>(adapter.config.r);
  lora.alpha = adapter.config.alpha;
  lora.dropout = adapter.config.dropout;
  lora.rslora = adapter.config.rslora;
  const auto modules = detail::modules_by_name(model);
  for (const auto& [module, factors] : adapter.modules) {
    ESP_REQUIRE(adapter.config.rank_of(module) == adapter.config.r &&
                    adapter.config.alpha_of(module) == adapter.config.alpha,
                FormatError, path, ": module \"", module,
                "\" has a rank or alpha of its own, which is not supported yet");
    const auto it = modules.find(module);
    ESP_REQUIRE(it != modules.end(), FormatError, path, ": module \"", module,
                "\" is not in the model");
    std::string target(target_of(it->second.part));
    for (const auto& [alias, meaning] : model.names.target_aliases) {
      if (meaning == target) {
        target = alias;
        break;
      }
    }
    if (!lora.targets_any(target)) lora.targets.push_back(target);
  }
  std::sort(lora.targets.begin(), lora.targets.end());
  return lora;
}

ESP_INLINE std::vector<std::string> target_modules_of(const DecoderConfig& model,
                                                      const std::vector<std::string>& targets) {
  std::vector<std::string> out;
  const std::vector<LinearModule> modules = linear_modules(model);
  for (const std::string& target : resolve_targets(model, targets)) {
    for (const LinearModule& m : modules) {
      if (target_of(m.part) != target) continue;
      const std::string name = detail::is_parameter_of_peft(model, m.part)
                                   ? detail::within_layer(m.name) + ".weight"
                                   : detail::last_component(m.name);
      if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(name);
    }
  }
  return out;
}

ESP_INLINE void load_adapter_values(const std::vector<NamedParameter>& parameters,
                                    const io::Adapter& adapter, const std::string& path) {
  ESP_REQUIRE(2 * adapter.modules.size() == parameters.size(), FormatError, path,
              ": the adapter has ", adapter.modules.size(), " modules, its targets ",
              parameters.size() / 2,
              " in this model; an adapter on some layers only is not supported yet");
  load_parameters<float>(parameters,
                         [&](const std::string& name) { return adapter.parameter(name); });
}

}  // namespace espalier::hub
#endif
