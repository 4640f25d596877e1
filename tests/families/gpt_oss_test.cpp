// SPDX-License-Identifier: Apache-2.0
#include "support/golden_family.hpp"

using namespace espalier::test;

TEST_CASE("gpt_oss: logits, loss, gradients and cached decoding equal those of transformers",
          "[families]") {
  const auto* name = GENERATE("gpt_oss");
  GoldenFamily(name).check();
}

TEST_CASE("gpt_oss: an adapter on every matrix gives the logits and gradients of transformers",
          "[families]") {
  GoldenFamily("gpt_oss").check_lora();
}
