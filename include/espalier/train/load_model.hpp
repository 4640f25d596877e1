// SPDX-License-Identifier: Apache-2.0
// From folders to a model: a Hugging Face checkpoint, with a PEFT adapter on it where one is given.
// Weights stay mapped in their stored type.
#pragma once

#ifdef __CUDACC__
#error "espalier/train/load_model.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <espalier/io/adapter.hpp>
#include <espalier/io/checkpoint.hpp>
#include <espalier/models/mixtral.hpp>

namespace espalier::train {

/// "model.layers.0.self_attn.q_proj" -> "q"
[[nodiscard]] inline std::string target_of(const std::string& module) {
  const std::string last = module.substr(module.rfind('.') + 1);
  return last.ends_with("_proj") ? last.substr(0, last.size() - 5) : last;
}

/// Rank, scale and targets of an adapter as the model takes them.
/// @throws FormatError when modules differ in rank or alpha, or some layers have none.
[[nodiscard]] inline LoraConfig lora_config_of(const io::Adapter& adapter,
                                               const std::string& path) {
  LoraConfig lora;
  lora.r = static_cast<int>(adapter.config.r);
  lora.alpha = adapter.config.alpha;
  lora.dropout = adapter.config.dropout;
  lora.rslora = adapter.config.rslora;
  for (const auto& [module, factors] : adapter.modules) {
    ESP_REQUIRE(adapter.config.rank_of(module) == adapter.config.r &&
                    adapter.config.alpha_of(module) == adapter.config.alpha,
                FormatError, path, ": module \"", module,
                "\" has a rank or alpha of its own, which is not supported yet");
    const std::string target = target_of(module);
    if (!lora.targets_any(target)) lora.targets.push_back(target);
  }
  std::sort(lora.targets.begin(), lora.targets.end());
  return lora;
}

/// Puts the values of `adapter` into a model's LoRA parameters.
/// @throws FormatError when it has other modules than the model.
inline void load_adapter_values(const std::vector<NamedParameter>& parameters,
                                const io::Adapter& adapter, const std::string& path) {
  ESP_REQUIRE(2 * adapter.modules.size() == parameters.size(), FormatError, path,
              ": the adapter has ", adapter.modules.size(), " modules, its targets ",
              parameters.size() / 2,
              " in this model; an adapter on some layers only is not supported yet");
  load_parameters<float>(parameters,
                         [&](const std::string& name) { return adapter.parameter(name); });
}

/// The model of `checkpoint`, computing in T, with the adapter in folder `adapter` unless that is
/// empty. The checkpoint may go: its mapped memory stays as long as the model.
/// @throws UsageError for a dense checkpoint, FormatError when the adapter does not fit.
template <FloatElement T = float, Device D = Cpu>
[[nodiscard]] Mixtral<T, D> load_model(const io::Checkpoint& checkpoint,
                                       const std::string& adapter = {}) {
  ESP_REQUIRE(checkpoint.config().num_local_experts > 0, UsageError, checkpoint.folder().string(),
              ": is a dense ", checkpoint.config().model_type,
              " checkpoint; upcycle makes a mixture of it");
  Mixtral<T, D> model(checkpoint.config(),
                      [&](const std::string& name) { return checkpoint.tensor(name); });
  if (!adapter.empty()) {
    const io::Adapter from = io::read_adapter(adapter);
    io::check_adapter_fits(from, checkpoint.config(), adapter);
    model.add_lora(lora_config_of(from, adapter), 0);
    load_adapter_values(model.parameters(), from, adapter);
  }
  return model;
}

}  // namespace espalier::train
