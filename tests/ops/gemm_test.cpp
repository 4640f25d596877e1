// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <espalier/ops/cpu/gemm.hpp>

#include "support/catch.hpp"
#include "support/gemm_operand.hpp"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::Contains;
using cpu::Isa;
using cpu::MatrixView;

TEMPLATE_TEST_CASE("gemm: integers come out exact for every size, layout and scale", "[ops][gemm]",
                   float, double) {
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    CAPTURE(name(isa));
    for (const std::int64_t m : {0, 1, 2, 7, 15, 29}) {
      for (const std::int64_t n : {0, 1, 7, 16, 17, 33, 70}) {
        for (const std::int64_t k : {0, 1, 5, 16, 37}) {
          for (const int layout : {0, 1, 2, 3}) {
            const auto a = make_operand(m, k, DType::f32, layout & 1, 1, small_integers(1));
            const auto b = make_operand(k, n, DType::bf16, layout & 2, 2, small_integers(2));
            const int scale = static_cast<int>((m + n + k) % 3);
            check_product<TestType>(a, b, scale == 0 ? 1 : -2, scale == 1 ? 0 : scale - 1.0, true);
          }
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("gemm: sizes beyond one block agree with a plain double loop", "[ops][gemm]",
                   float, double) {
  const auto size = GENERATE(Size{1, 600, 1000}, Size{3, 129, 777}, Size{61, 300, 641},
                             Size{150, 1100, 70}, Size{700, 19, 330}, Size{1, 1, 2100});
  const auto layout = GENERATE(0, 1, 2, 3);
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    CAPTURE(name(isa));
    const auto a =
        make_operand(size.m, size.k, dtype_of<TestType>::value, layout & 1, 0, normals(3));
    const auto b =
        make_operand(size.k, size.n, dtype_of<TestType>::value, layout & 2, 5, normals(4));
    check_product<TestType>(a, b, 0.5, layout == 1 ? 2.0 : 0.0, false);
  }
}

TEST_CASE("gemm: every pair of operand types", "[ops][gemm]") {
  const std::vector<DType> types = {DType::f32, DType::bf16, DType::f16, DType::f64};
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    CAPTURE(name(isa));
    for (const DType ta : types) {
      for (const DType tb : types) {
        for (const int layout : {0, 1, 2, 3}) {
          const auto a = make_operand(23, 51, ta, layout & 1, 3, normals(5));
          const auto b = make_operand(51, 45, tb, layout & 2, 0, normals(6));
          if (ta != DType::f64 && tb != DType::f64) check_product<float>(a, b, 1, 0, false);
          check_product<double>(a, b, 1, 1, false);
        }
      }
    }
  }
}

TEST_CASE("gemm: f16 subnormals, infinities and NaN widen exactly", "[ops][gemm]") {
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    std::vector<f16> halves(1 << 16);
    for (std::uint32_t i = 0; i < halves.size(); ++i)
      halves[i].bits = static_cast<std::uint16_t>(i);
    const float one = 1;
    std::vector<float> wide(halves.size());
    const auto n = static_cast<std::int64_t>(halves.size());
    cpu::gemm<float>(n, 1, 1, {halves.data(), DType::f16, 1}, {&one, DType::f32, 1}, wide.data(),
                     1);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < wide.size(); ++i) {
      const float want = static_cast<float>(halves[i]);
      wrong += !(wide[i] == want || (std::isnan(wide[i]) && std::isnan(want)));
    }
    CAPTURE(name(isa));
    CHECK(wrong == 0);
  }
}

TEST_CASE("gemm: an uneven batch equals its problems one by one", "[ops][gemm]") {
  const std::vector<std::int64_t> rows = {130, 0, 1, 257, 13, 0, 64, 5};
  std::vector<Operand> as, bs;
  std::vector<std::vector<float>> got, want;
  std::vector<cpu::GemmProblem<float>> problems;
  for (std::size_t e = 0; e < rows.size(); ++e) {
    as.push_back(make_operand(rows[e], 96, DType::f32, false, 0, normals(10 + e)));
    bs.push_back(make_operand(96, 150, DType::bf16, true, 0, normals(30 + e)));
    got.emplace_back(static_cast<std::size_t>(rows[e] * 150));
    want.push_back(product<float>(as[e], bs[e]));
  }
  for (std::size_t e = 0; e < rows.size(); ++e) {
    problems.push_back({rows[e], 150, 96, as[e].view(), bs[e].view(), got[e].data(), 150});
  }
  cpu::gemm_batch<float>(problems);
  for (std::size_t e = 0; e < rows.size(); ++e) {
    CAPTURE(e, rows[e]);
    CHECK(same_bits(got[e], want[e]));
  }
  cpu::gemm_batch<float>({});
}

TEST_CASE("gemm: the same bits for any number of threads", "[ops][gemm]") {
  const int before = num_threads();
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    const auto a = make_operand(201, 700, DType::f32, false, 0, normals(7));
    const auto b = make_operand(700, 333, DType::f32, true, 0, normals(8));
    set_num_threads(1);
    const auto want = product<float>(a, b);
    for (const int threads : {2, 3, 8}) {
      set_num_threads(threads);
      CAPTURE(name(isa), threads);
      CHECK(same_bits(product<float>(a, b), want));
    }
    set_num_threads(before);
  }
}

TEST_CASE("gemm: a row has the same bits in a batch of any size", "[ops][gemm]") {
  const auto [ta, tb] = GENERATE(table<DType, DType>({{DType::f32, DType::f32},
                                                      {DType::f32, DType::bf16},
                                                      {DType::bf16, DType::bf16},
                                                      {DType::bf16, DType::f32},
                                                      {DType::f16, DType::f16}}));
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    const auto a = make_operand(300, 900, ta, false, 0, normals(17));
    const auto b = make_operand(900, 90, tb, true, 0, normals(18));
    const auto want = product<float>(a, b);
    for (const std::int64_t m : {1, 2, 3, 5, 8, 14, 31, 100}) {
      std::vector<float> got(static_cast<std::size_t>(m * 90));
      cpu::gemm<float>(m, 90, 900, a.view(), b.view(), got.data(), 90);
      CAPTURE(name(isa), name(ta), name(tb), m);
      CHECK(std::memcmp(got.data(), want.data(), got.size() * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("gemm: more rows than are packed at a time", "[ops][gemm]") {
  const std::int64_t m = 40000, n = 3, k = 350;
  const auto a = make_operand(m, k, DType::bf16, true, 0, small_integers(11));
  const auto b = make_operand(k, n, DType::f32, false, 0, small_integers(12));
  check_product<float>(a, b, 1, 1, true);
}

TEST_CASE("gemm: NaN and infinity reach exactly their row or column", "[ops][gemm]") {
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    std::vector<float> a(20 * 40, 1.0f), b(40 * 50, 1.0f), c(20 * 50);
    a[3 * 40 + 7] = std::numeric_limits<float>::quiet_NaN();
    b[39 * 50 + 49] = std::numeric_limits<float>::infinity();
    cpu::gemm<float>(20, 50, 40, {a.data(), DType::f32, 40}, {b.data(), DType::f32, 50}, c.data(),
                     50);
    std::size_t wrong = 0;
    for (int i = 0; i < 20; ++i) {
      for (int j = 0; j < 50; ++j) {
        const float got = c[i * 50 + j];
        wrong += i == 3 ? !std::isnan(got) : j == 49 ? !std::isinf(got) : got != 40.0f;
      }
    }
    CAPTURE(name(isa));
    CHECK(wrong == 0);
  }
}

TEST_CASE("gemm: sizes and types that do not fit are named", "[ops][gemm]") {
  float x[16] = {};
  const MatrixView ok{x, DType::f32, 4};
  CHECK_THROWS_WITH(cpu::gemm<float>(2, 5, 4, ok, ok, x, 5),
                    Contains("gemm: b has stride 4, expected at least its row length 5"));
  CHECK_THROWS_WITH(cpu::gemm<float>(2, 4, 4, ok, ok, x, 3), Contains("c has stride 3"));
  CHECK_THROWS_WITH(cpu::gemm<float>(-1, 4, 4, ok, ok, x, 4), Contains("m n k are -1 4 4"));
  CHECK_THROWS_AS(cpu::gemm<float>(2, 4, 4, {x, DType::f64, 4}, ok, x, 4), DTypeError);
  CHECK_THROWS_AS(cpu::gemm<float>(2, 4, 4, ok, {x, DType::i32, 4}, x, 4), DTypeError);
}
