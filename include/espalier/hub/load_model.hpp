// SPDX-License-Identifier: Apache-2.0
// From folders to a model: a Hugging Face checkpoint, with a PEFT adapter on it where one is given.
// Weights stay mapped in their stored type.
#pragma once

#ifdef __CUDACC__
#error "espalier/hub/load_model.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/hub/adapter.hpp>
#include <espalier/hub/checkpoint.hpp>

namespace espalier::hub {

/// The model of `checkpoint`, computing in T, with the adapter in folder `adapter` unless that is
/// empty. The checkpoint may go: its mapped memory stays as long as the model.
/// @throws UnsupportedError where there is no forward pass, FormatError when the adapter does not
/// fit.
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
