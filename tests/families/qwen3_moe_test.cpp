// SPDX-License-Identifier: Apache-2.0
#include "support/golden_family.hpp"

using namespace espalier::test;

TEST_CASE("qwen3_moe: logits, loss, gradients and cached decoding equal those of transformers",
          "[families]") {
  const auto* name = GENERATE("qwen3_moe", "qwen3_moe_plain");
  GoldenFamily(name).check();
}

TEST_CASE("qwen3_moe: an adapter on every matrix gives the logits and gradients of transformers",
          "[families]") {
  GoldenFamily("qwen3_moe").check_lora();
}
