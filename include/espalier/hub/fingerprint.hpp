// SPDX-License-Identifier: Apache-2.0
// The identity of a model: whatever goes on from earlier work (a resumed run, a journal, a plan)
// asks whether it is about the same weights.
#pragma once

#ifdef __CUDACC__
#error "espalier/hub/fingerprint.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/fingerprint.hpp>

namespace espalier::hub {

/// Of config.json as a value, and of every byte of every shard; 16 hexadecimal digits. The folder's
/// name and place do not count. The first time it reads the whole checkpoint
/// (io::fingerprint_of_file).
[[nodiscard]] std::string fingerprint_of_weights(const io::CheckpointFiles& checkpoint);

/// Of a PEFT adapter: its config and its weights.
[[nodiscard]] std::string fingerprint_of_adapter(const std::filesystem::path& folder);

/// "The same numbers will come out": weights, adapter (a folder, or empty), and how the model
/// computes, such as "f32".
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
