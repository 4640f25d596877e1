// SPDX-License-Identifier: Apache-2.0
// config.json, an index of shards, a trainer's state.
#include <espalier/hub/json_config.hpp>
#include <espalier/io/checkpoint_files.hpp>
#include <espalier/train/run_state.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  fuzz::accepts([&] {
    const io::Json json = io::parse_json(text, "config.json");
    fuzz::accepts([&] {
      const DecoderConfig c = hub::parse_config(json);
      (void)hub::config_json(c, DType::bf16);
    });
    fuzz::accepts([&] { (void)hub::token_ids(json.find_value("eos_token_id")); });
  });
  fuzz::accepts([&] { (void)train::read_run_state(fuzz::file_of("trainer_state.json", text)); });
  const auto index = fuzz::file_of("model.safetensors.index.json", text);
  fuzz::accepts([&] { const io::CheckpointFiles files(index.parent_path()); });
}
