// SPDX-License-Identifier: Apache-2.0
// Fingerprints of models. A resumed run, a journal and a pruning plan record the fingerprint of the
// model that they belong to, and are refused for another one.
#pragma once

#ifdef __CUDACC__
#error "espalier/hub/fingerprint.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/fingerprint.hpp>

namespace espalier::hub {

/// Hashes config.json as a value and every byte of every shard to 16 hexadecimal digits. Name and
/// place of the folder do not matter. The first call reads the whole checkpoint, later ones use the
/// cache of io::fingerprint_of_file.
[[nodiscard]] std::string fingerprint_of_weights(const io::CheckpointFiles& checkpoint);

/// Hashes config and weights of a PEFT adapter.
[[nodiscard]] std::string fingerprint_of_adapter(const std::filesystem::path& folder);

/// Equal fingerprints mean equal numbers: hashes the weights, the adapter (a folder, or empty) and
/// the arithmetic of the model, such as "f32".
[[nodiscard]] std::string fingerprint_of_model(const io::CheckpointFiles& checkpoint,
                                               const std::filesystem::path& adapter,
                                               std::string_view compute);

}  // namespace espalier::hub

#ifdef ESP_BODIES
namespace espalier::hub {

ESP_INLINE std::string fingerprint_of_weights(const io::CheckpointFiles& checkpoint) {
  io::Fingerprint print;
  print.add(io::dump(checkpoint.config_json()));
  for (const auto& shard : checkpoint.shards()) {
    print.add(shard.file).add(io::fingerprint_of_file(shard.content.path()));
  }
  return print.text();
}

ESP_INLINE std::string fingerprint_of_adapter(const std::filesystem::path& folder) {
  io::Fingerprint print;
  for (const char* file : {"adapter_config.json", "adapter_model.safetensors"}) {
    print.add(io::fingerprint_of_file(folder / file));
  }
  return print.text();
}

ESP_INLINE std::string fingerprint_of_model(const io::CheckpointFiles& checkpoint,
                                            const std::filesystem::path& adapter,
                                            std::string_view compute) {
  io::Fingerprint print;
  print.add(compute).add(fingerprint_of_weights(checkpoint));
  if (!adapter.empty()) print.add(fingerprint_of_adapter(adapter));
  return print.text();
}

}  // namespace espalier::hub
#endif
