// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <vector>

#include <espalier/ops/cpu/gemm.hpp>

#include "support/catch.hpp"
#include "support/gemm_operand.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("gemm bf16: integers come out exact for every size, layout and scale",
                   "[ops][gemm]", float, bf16) {
  for (const cpu::Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    CAPTURE(name(isa));
    for (const std::int64_t m : {0, 1, 2, 7, 15, 33}) {
      for (const std::int64_t n : {0, 1, 7, 16, 17, 33, 70}) {
        for (const std::int64_t k : {0, 1, 5, 16, 37, 64}) {
          for (const int layout : {0, 1, 2, 3}) {
            const auto a = make_operand(m, k, DType::bf16, layout & 1, 1, small_integers(1));
            const auto b = make_operand(k, n, DType::bf16, layout & 2, 2, small_integers(2));
            const int scale = static_cast<int>((m + n + k) % 3);
            check_product<TestType>(a, b, scale == 0 ? 1 : -2, scale == 1 ? 0 : scale - 1.0, true);
          }
        }
      }
    }
  }
}
