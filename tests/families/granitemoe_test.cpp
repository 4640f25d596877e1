// SPDX-License-Identifier: Apache-2.0
#include "support/golden_family.hpp"

using namespace espalier::test;

TEST_CASE("granitemoe: logits, loss, gradients and cached decoding equal those of transformers",
          "[families]") {
  const auto* name = GENERATE("granitemoe");
  GoldenFamily(name).check();
}
