// SPDX-License-Identifier: Apache-2.0
#include "support/golden_family.hpp"

using namespace espalier::test;

TEST_CASE("deepseek_v3: logits, loss, gradients and cached decoding equal those of transformers",
          "[families]") {
  const auto* name = GENERATE("deepseek_v3", "deepseek_v3_plain");
  GoldenFamily(name).check();
}

TEST_CASE("deepseek_v3: an adapter on every matrix gives the logits and gradients of transformers",
          "[families]") {
  GoldenFamily("deepseek_v3").check_lora();
}
