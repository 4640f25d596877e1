// SPDX-License-Identifier: Apache-2.0
// Loads a model from a Hugging Face checkpoint folder and, if given, a PEFT adapter folder. Weights
// stay mapped in their stored type.
#pragma once

#ifdef __CUDACC__
#error "espalier/hub/load_model.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/hub/adapter.hpp>
#include <espalier/hub/checkpoint.hpp>

namespace espalier::hub {

/// Loads the model of `checkpoint` to compute in T, with the adapter in folder `adapter` (empty:
/// none). The model keeps the mapped files alive; `checkpoint` may be destroyed.
/// @throws UnsupportedError for a model without a forward pass, FormatError for an adapter of
/// another model
template <FloatElement T = float, Device D = Cpu>
[[nodiscard]] Decoder<T, D> load_model(const Checkpoint& checkpoint,
                                       const std::string& adapter = {}) {
  Decoder<T, D> model(checkpoint.config(),
                      [&](const std::string& name) { return checkpoint.tensor(name); });
  if (!adapter.empty()) {
    const io::Adapter from = io::read_adapter(adapter);
    check_adapter_fits(from, checkpoint.config(), adapter);
    model.add_lora(lora_config_of(from, checkpoint.config(), adapter), 0);
    load_adapter_values(model.parameters(), from, adapter);
  }
  return model;
}

}  // namespace espalier::hub
