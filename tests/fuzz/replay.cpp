// SPDX-License-Identifier: Apache-2.0
// Recorded outputs of a model, to be judged again; MMLU-Pro's questions.
#include <espalier/eval/replay.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  const auto file = fuzz::file_of("outputs.json", text);
  fuzz::accepts([&] { (void)eval::replay(file, eval::MmluProRule{}); });
  fuzz::accepts([&] { (void)eval::load_mmlu_pro(file); });
}
