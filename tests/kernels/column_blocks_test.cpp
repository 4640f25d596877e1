// SPDX-License-Identifier: Apache-2.0
// Blocks of columns against plain loops, under every schedule of threads and blocks.
#include <espalier/kernels/column_blocks.cuh>

#include <espalier/ops/reference/column_blocks.hpp>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("column_blocks kernels: columns to their place between zeros",
                   "[kernels][column_blocks]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t rows = GENERATE(0, 1, 5);
  const bool misaligned = GENERATE(false, true);
  struct Case {
    std::int64_t width, begin, count;
  };
  const auto c = GENERATE(Case{1, 0, 1}, Case{40, 8, 16}, Case{40, 3, 16}, Case{41, 0, 8},
                          Case{7, 7, 0}, Case{264, 0, 264});
  CAPTURE(rows, misaligned, c.width, c.begin, c.count);
  const auto wide = normal_as<T>(rows * c.width, 1), part = normal_as<T>(rows * c.count, 2);
  for_each_schedule([&](auto) {
    Buffer<T> x(wide, misaligned), y(rows * c.count, misaligned), z(part, misaligned),
        back(rows * c.width, misaligned);
    REQUIRE(kernels::place_columns(y.data(), {c.count, 0}, x.data(), {c.width, c.begin}, rows,
                                   c.count, nullptr) == cudaSuccess);
    REQUIRE(y.values() == reference::narrow(wide, rows, c.width, c.begin, c.count));
    REQUIRE(kernels::place_columns(back.data(), {c.width, c.begin}, z.data(), {c.count, 0}, rows,
                                   c.count, nullptr) == cudaSuccess);
    REQUIRE(back.values() == reference::widen(part, rows, c.count, c.begin, c.width));
    REQUIRE((y.guarded() && back.guarded()));
  });
}

TEMPLATE_TEST_CASE("column_blocks kernels: heads side by side, and the sum over those that share",
                   "[kernels][column_blocks]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 4), heads = GENERATE(1, 3);
  const std::int64_t p1 = GENERATE(0, 5, 16), p2 = GENERATE(3, 8, 72);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, heads, p1, p2, misaligned);
  for (const std::int64_t b_heads : {std::int64_t{1}, heads}) {
    const auto a = normal_as<T>(n * heads * p1, 1), b = normal_as<T>(n * b_heads * p2, 2);
    const auto dy = normal_as<T>(n * heads * (p1 + p2), 3);
    for_each_schedule([&](auto) {
      Buffer<T> va(a, misaligned), vb(b, misaligned), y(n * heads * (p1 + p2), misaligned);
      REQUIRE(kernels::concat_heads(y.data(), va.data(), vb.data(), n, heads, b_heads, p1, p2,
                                    nullptr) == cudaSuccess);
      REQUIRE(y.values() == reference::concat_heads(a, b, n, heads, b_heads, p1, p2));
      Buffer<T> d(dy, misaligned), db(n * p2, misaligned);
      REQUIRE(kernels::sum_heads(db.data(), d.data(), {p1 + p2, p1}, n, heads, p2, nullptr) ==
              cudaSuccess);
      require_near<T>(db.values(), reference::concat_heads_backward(dy, n, heads, 1, p1, p2).db,
                      heads);
      REQUIRE((y.guarded() && db.guarded()));
    });
  }
}
