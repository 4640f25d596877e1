// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include <espalier/ops/cpu/gemm.hpp>

#include "support/catch.hpp"
#include "support/gemm_operand.hpp"

using namespace espalier;
using namespace espalier::test;
using cpu::Isa;

namespace {

Operand bf16_operand(std::int64_t rows, std::int64_t cols, bool transposed, std::int64_t gap,
                     std::uint64_t seed) {
  return make_operand(rows, cols, DType::bf16, transposed, gap, normals(seed));
}

float flushed(float x) {
  return std::abs(x) < std::numeric_limits<float>::min() ? std::copysign(0.0f, x) : x;
}
/// A row of A times a column of B in the order and with the roundings of the instructions of `isa`.
float as_instructions(Isa isa, const Operand& a, std::int64_t i, const Operand& b, std::int64_t j) {
  const std::int64_t k = a.cols;
  const auto term = [&](std::int64_t at, float sum) {
    if (at >= k) return sum + 0.0f;
    const auto x = static_cast<float>(a.at(i, at)), y = static_cast<float>(b.at(at, j));
    return flushed(std::fma(flushed(x), flushed(y), sum));
  };
  const std::int64_t padded = (k + 31) / 32 * 32;
  float sum = 0;
  for (std::int64_t at = 0; at < padded; at += 32) {
    float even = 0, odd = 0;
    for (std::int64_t pair = at; pair < at + 32; pair += 2) {
      if (isa == Isa::amx) {
        even = term(pair, even);
        odd = term(pair + 1, odd);
      } else {
        sum = term(pair, term(pair + 1, sum));
      }
    }
    if (isa == Isa::amx) sum = flushed(sum + flushed(even + odd));
  }
  return sum;
}

}  // namespace

TEMPLATE_TEST_CASE("gemm bf16: integers come out exact for every size, layout and scale",
                   "[ops][gemm]", float, bf16) {
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    CAPTURE(name(isa));
    for (const std::int64_t m : {0, 1, 7, 16, 33}) {
      for (const std::int64_t n : {0, 1, 16, 17, 70}) {
        for (const std::int64_t k : {0, 1, 37, 64}) {
          for (const int layout : {0, 1, 2, 3}) {
            const auto a = make_operand(m, k, DType::bf16, layout & 1, 1, small_integers(1));
            const auto b = make_operand(k, n, DType::bf16, layout & 2, 2, small_integers(2));
            const int scale = static_cast<int>((m + n + k) % 3);
            check_product<TestType>(a, b, scale == 0 ? 1 : -2, scale == 1 ? 0 : scale - 1.0, true);
            check_product<TestType>(a, b, 1, 0, true);
          }
        }
      }
    }
  }
}

TEMPLATE_TEST_CASE("gemm bf16: sizes beyond one block agree with a plain double loop",
                   "[ops][gemm]", float, bf16) {
  // The last ones are deeper than one block of k for many columns, and than one part for few.
  const auto size = GENERATE(Size{1, 300, 1000}, Size{61, 130, 641}, Size{150, 550, 70},
                             Size{300, 19, 330}, Size{33, 257, 2100}, Size{3, 20, 9001});
  const auto layout = GENERATE(0, 1, 2, 3);
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    CAPTURE(name(isa));
    const auto a = bf16_operand(size.m, size.k, layout & 1, 0, 3);
    const auto b = bf16_operand(size.k, size.n, layout & 2, 5, 4);
    check_product<TestType>(a, b, layout % 2 ? 0.5 : 1, layout == 1 ? 2.0 : 0.0, false);
  }
}

TEST_CASE("gemm bf16: C of bf16 takes operands of any type, and is rounded once", "[ops][gemm]") {
  const std::vector<DType> types = {DType::f32, DType::bf16, DType::f16};
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    CAPTURE(name(isa));
    for (const DType ta : types) {
      for (const DType tb : types) {
        const auto a = make_operand(23, 51, ta, false, 3, normals(5));
        const auto b = make_operand(51, 45, tb, true, 0, normals(6));
        check_product<bf16>(a, b, 1, 0, false);
        check_product<bf16>(a, b, -0.5, 3, false);
        const auto narrow = product<bf16>(a, b);
        const auto wide = product<float>(a, b);
        std::size_t wrong = 0;
        for (std::size_t i = 0; i < wide.size(); ++i) wrong += narrow[i].bits != bf16(wide[i]).bits;
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("gemm bf16: every bit is that of the instructions' definition", "[ops][gemm]") {
  for (const Isa isa : {Isa::avx512_bf16, Isa::amx}) {
    if (isa > cpu::best_isa()) {
      SUCCEED("this processor has no " << name(isa));
      continue;
    }
    const cpu::IsaOverride forced(isa);
    CAPTURE(name(isa));
    for (const Size size : {Size{5, 40, 101}, Size{40, 5, 64}, Size{2, 3, 1500}}) {
      for (const int layout : {0, 1, 2, 3}) {
        const auto a = bf16_operand(size.m, size.k, layout & 1, 0, 7);
        const auto b = bf16_operand(size.k, size.n, layout & 2, 0, 8);
        const auto got = product<float>(a, b);
        std::size_t wrong = 0;
        for (std::int64_t i = 0; i < size.m; ++i) {
          for (std::int64_t j = 0; j < size.n; ++j) {
            const float want = as_instructions(isa, a, i, b, j);
            wrong += std::bit_cast<std::uint32_t>(got[i * size.n + j]) !=
                     std::bit_cast<std::uint32_t>(want);
          }
        }
        CAPTURE(size.m, size.n, size.k, layout);
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("gemm bf16: subnormal numbers count, but as 0 in the products of bf16 instructions",
          "[ops][gemm]") {
  const bf16 tiny(0x1p-130f), huge(0x1p100f);
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    CAPTURE(name(isa));
    float c = 1;
    cpu::gemm<float>(1, 1, 1, {&tiny, DType::bf16, 1}, {&huge, DType::bf16, 1}, &c, 1);
    CHECK(c == (isa >= Isa::avx512_bf16 ? 0.0f : 0x1p-30f));
  }
}

TEST_CASE("gemm bf16: an uneven batch equals its problems one by one", "[ops][gemm]") {
  const std::vector<std::int64_t> rows = {130, 0, 1, 257, 13, 0, 64, 5};
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    CAPTURE(name(isa));
    std::vector<Operand> as, bs;
    std::vector<std::vector<bf16>> got, want;
    std::vector<cpu::GemmProblem<bf16>> problems;
    for (std::size_t e = 0; e < rows.size(); ++e) {
      as.push_back(bf16_operand(rows[e], 96, false, 0, 10 + e));
      // One weight is f32: its problem goes another way than the others.
      const DType type = e == 4 ? DType::f32 : DType::bf16;
      bs.push_back(make_operand(96, 150, type, true, 0, normals(30 + e)));
      got.emplace_back(static_cast<std::size_t>(rows[e] * 150));
      want.push_back(product<bf16>(as[e], bs[e]));
    }
    for (std::size_t e = 0; e < rows.size(); ++e) {
      problems.push_back({rows[e], 150, 96, as[e].view(), bs[e].view(), got[e].data(), 150});
    }
    cpu::gemm_batch<bf16>(problems);
    for (std::size_t e = 0; e < rows.size(); ++e) {
      CAPTURE(e, rows[e]);
      CHECK(same_bits(got[e], want[e]));
    }
    // Weight gradients: no rows, no gradient; a batch of them, the sums over rows of two operands.
    std::vector<std::vector<float>> dw(rows.size(), std::vector<float>(96 * 40, 5.0f));
    std::vector<cpu::GemmProblem<float>> gradients;
    for (std::size_t e = 0; e < rows.size(); ++e) {
      auto x = as[e].view(), dy = as[e].view();
      dy.transposed = true;
      gradients.push_back({40, 96, rows[e], dy, x, dw[e].data(), 96});
    }
    cpu::gemm_batch<float>(gradients);
    for (std::size_t e = 0; e < rows.size(); ++e) {
      std::vector<float> alone(96 * 40);
      cpu::gemm<float>(40, 96, rows[e], gradients[e].a, gradients[e].b, alone.data(), 96);
      CAPTURE(e, rows[e]);
      CHECK(same_bits(dw[e], alone));
      if (rows[e] == 0) CHECK(dw[e] == std::vector<float>(96 * 40, 0.0f));
    }
  }
}

TEST_CASE("gemm bf16: the same bits for any number of threads", "[ops][gemm]") {
  const int before = num_threads();
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    for (const int layout : {0, 1, 2, 3}) {
      const auto a = bf16_operand(201, 700, layout & 1, 0, 7);
      const auto b = bf16_operand(700, 333, layout & 2, 0, 8);
      set_num_threads(1);
      const auto want = product<bf16>(a, b);
      for (const int threads : {2, 3, 8}) {
        set_num_threads(threads);
        CAPTURE(name(isa), threads, layout);
        CHECK(same_bits(product<bf16>(a, b), want));
      }
      set_num_threads(before);
    }
  }
}

TEMPLATE_TEST_CASE("gemm bf16: a row has the same bits in a batch of any size", "[ops][gemm]",
                   float, bf16) {
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    for (const bool transposed : {false, true}) {
      // As 512 rows the sums are those of C, as 1 those of its transpose.
      const auto a = bf16_operand(512, 901, false, 0, 17);
      const auto b = bf16_operand(901, 90, transposed, 0, 18);
      const auto want = product<TestType>(a, b);
      for (const std::int64_t m : {1, 2, 3, 5, 8, 14, 31, 100}) {
        std::vector<TestType> got(static_cast<std::size_t>(m * 90));
        cpu::gemm<TestType>(m, 90, 901, a.view(), b.view(), got.data(), 90);
        CAPTURE(name(isa), m, transposed);
        CHECK(std::memcmp(got.data(), want.data(), got.size() * sizeof(TestType)) == 0);
      }
    }
  }
}

TEST_CASE("gemm bf16: NaN and infinity reach exactly their row or column", "[ops][gemm]") {
  const bf16 one(1.0f), nan(std::numeric_limits<float>::quiet_NaN()),
      infinity(std::numeric_limits<float>::infinity());
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    for (const int layout : {0, 1, 2, 3}) {
      const bool at = layout & 1, bt = layout & 2;
      std::vector<bf16> a(20 * 40, one), b(40 * 50, one), c(20 * 50);
      a[at ? 7 * 20 + 3 : 3 * 40 + 7] = nan;
      b[bt ? 49 * 40 + 39 : 39 * 50 + 49] = infinity;
      cpu::gemm<bf16>(20, 50, 40, {a.data(), DType::bf16, at ? 20 : 40, at},
                      {b.data(), DType::bf16, bt ? 40 : 50, bt}, c.data(), 50);
      std::size_t wrong = 0;
      for (int i = 0; i < 20; ++i) {
        for (int j = 0; j < 50; ++j) {
          const auto got = static_cast<float>(c[i * 50 + j]);
          wrong += i == 3 ? !std::isnan(got) : j == 49 ? !std::isinf(got) : got != 40.0f;
        }
      }
      CAPTURE(name(isa), layout);
      CHECK(wrong == 0);
    }
  }
}

TEST_CASE("gemm bf16: sizes that do not fit are named", "[ops][gemm]") {
  bf16 x[16] = {};
  const cpu::MatrixView ok{x, DType::bf16, 4};
  CHECK_THROWS_WITH(cpu::gemm<bf16>(2, 5, 4, ok, ok, x, 5),
                    Catch::Matchers::Contains("gemm: b has stride 4, expected at least"));
  CHECK_THROWS_AS(cpu::gemm<bf16>(2, 4, 4, {x, DType::f64, 4}, ok, x, 4), DTypeError);
}
