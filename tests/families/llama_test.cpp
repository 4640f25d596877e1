// SPDX-License-Identifier: Apache-2.0
#include "support/golden_family.hpp"

using namespace espalier::test;

TEST_CASE("llama: logits, loss, gradients and cached decoding equal those of transformers",
          "[families]") {
  const auto* name = GENERATE("llama", "llama_plain");
  GoldenFamily(name).check();
}

TEST_CASE("llama: an adapter on every matrix gives the logits and gradients of transformers",
          "[families]") {
  GoldenFamily("llama").check_lora();
}
