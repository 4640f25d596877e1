// SPDX-License-Identifier: Apache-2.0
// The answer letter of a model's output.
#include <espalier/eval/answer.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  for (int levels = 1; levels <= 3; ++levels) {
    fuzz::accepts([&] { (void)eval::extract_answer(text, levels); });
  }
}
