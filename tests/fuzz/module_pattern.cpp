// SPDX-License-Identifier: Apache-2.0
// A module pattern of an adapter, matched against names that repeat.
#include <espalier/io/module_pattern.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  fuzz::accepts([&] {
    const io::ModulePattern pattern{std::string(text)};
    for (const char* module : {"model.layers.0.self_attn.q_proj",
                               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", ""}) {
      fuzz::accepts([&] { (void)pattern.matches(module); });
    }
  });
}
