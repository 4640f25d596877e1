// SPDX-License-Identifier: Apache-2.0
#include "support/golden_family.hpp"

using namespace espalier::test;

TEST_CASE("deepseek_v2: logits, loss, gradients and cached decoding equal those of transformers",
          "[families]") {
  const auto* name = GENERATE("deepseek_v2", "deepseek_v2_lite");
  GoldenFamily(name).check();
}
