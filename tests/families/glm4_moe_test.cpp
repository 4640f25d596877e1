// SPDX-License-Identifier: Apache-2.0
#include "support/golden_family.hpp"

using namespace espalier::test;

TEST_CASE("glm4_moe: logits, loss, gradients and cached decoding equal those of transformers",
          "[families]") {
  const auto* name = GENERATE("glm4_moe", "glm4_moe_plain");
  GoldenFamily(name).check();
}
