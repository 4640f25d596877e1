// SPDX-License-Identifier: Apache-2.0
#include "support/golden_family.hpp"

using namespace espalier::test;

TEST_CASE("mixtral: logits, loss, gradients and cached decoding equal those of transformers",
          "[families]") {
  const auto* name = GENERATE("mixtral_window");
  GoldenFamily(name).check();
}

TEST_CASE("mixtral: an adapter on every matrix gives the logits and gradients of transformers",
          "[families]") {
  GoldenFamily("mixtral_window").check_lora();
}
