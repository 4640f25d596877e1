// SPDX-License-Identifier: Apache-2.0
#include "support/golden_family.hpp"

using namespace espalier::test;

TEST_CASE("olmoe: logits, loss, gradients and cached decoding equal those of transformers",
          "[families]") {
  const auto* name = GENERATE("olmoe", "olmoe_clip");
  GoldenFamily(name).check();
}

TEST_CASE("olmoe: an adapter on every matrix gives the logits and gradients of transformers",
          "[families]") {
  GoldenFamily("olmoe").check_lora();
}
