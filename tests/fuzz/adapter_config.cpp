// SPDX-License-Identifier: Apache-2.0
// adapter_config.json: ranks and factors of modules; what is read is written and read back.
#include <espalier/io/adapter_config.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  fuzz::accepts([&] {
    const io::AdapterConfig c = io::parse_adapter_config(io::parse_json(text, "a.json"));
    for (const char* module : {"model.layers.0.self_attn.q_proj", "w1", ""}) {
      fuzz::accepts([&] { (void)c.scale(module, c.rank_of(module)); });
    }
    (void)io::parse_adapter_config(io::adapter_config_json(c));
  });
}
