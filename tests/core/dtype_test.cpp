// SPDX-License-Identifier: Apache-2.0
#include <espalier/core/dtype.hpp>
#include <espalier/core/shape.hpp>

#include <cmath>
#include <cstring>
#include <limits>

#include "support/catch.hpp"

using namespace espalier;

namespace {
// Value of an IEEE half by its definition, with powers in double.
double half_value(std::uint16_t bits) {
  const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == 31) {
    return mantissa ? std::numeric_limits<double>::quiet_NaN()
                    : sign * std::numeric_limits<double>::infinity();
  }
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}
f16 half_of(std::uint16_t bits) {
  f16 h;
  h.bits = bits;
  return h;
}
bf16 brain_of(std::uint16_t bits) {
  bf16 b;
  b.bits = bits;
  return b;
}
}  // namespace

TEST_CASE("f16: all 65536 values widen exactly and come back", "[core][dtype]") {
  int wrong = 0;
  for (int i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const float wide = static_cast<float>(half_of(bits));
    const double want = half_value(bits);
    if (std::isnan(want)) {
      wrong += !std::isnan(wide) || !std::isnan(static_cast<float>(f16(wide)));
    } else {
      wrong += !(wide == want) || f16(wide).bits != bits;
    }
  }
  REQUIRE(wrong == 0);
}

TEST_CASE("f16 and bf16: halfway cases round to even, overflow to infinity", "[core][dtype]") {
  for (int i = 1; i < 0x7bff; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    const double low = half_value(bits), high = half_value(static_cast<std::uint16_t>(i + 1));
    const f16 middle(static_cast<float>((low + high) / 2));
    REQUIRE(middle.bits == (i % 2 == 0 ? i : i + 1));
  }
  REQUIRE(f16(65519.996f).bits == 0x7bff);
  REQUIRE(f16(65520.0f).bits == 0x7c00);
  REQUIRE(f16(-0.0f).bits == 0x8000);
  REQUIRE(bf16(1.00390625f).bits == 0x3f80);  // 1 + 2^-8: half way, even is below
  REQUIRE(bf16(1.01171875f).bits == 0x3f82);  // 1 + 3 * 2^-8: half way, even is above
  REQUIRE(bf16(3.4e38f).bits == 0x7f80);
  REQUIRE(std::isnan(static_cast<float>(bf16(std::numeric_limits<float>::quiet_NaN()))));
}

TEST_CASE("bf16: all 65536 values widen and come back", "[core][dtype]") {
  int wrong = 0;
  for (int i = 0; i < 65536; ++i) {
    const float wide = static_cast<float>(brain_of(static_cast<std::uint16_t>(i)));
    wrong += std::isnan(wide) ? !std::isnan(static_cast<float>(bf16(wide))) : bf16(wide).bits != i;
  }
  REQUIRE(wrong == 0);
}

TEST_CASE("visit_dtype: refuses with the list of what it was built for", "[core][dtype]") {
  const auto size =
      visit_dtype<float, bf16>("op", DType::bf16, []<class T>() { return sizeof(T); });
  REQUIRE(size == 2);
  REQUIRE_THROWS_WITH(
      (visit_dtype<float, bf16>("rms_norm", DType::i32, []<class T>() { return 0; })),
      "rms_norm: unsupported dtype i32; built for f32 bf16");
}

TEST_CASE("Shape: extents, negative axes, and what it refuses", "[core][shape]") {
  const Shape s{2, 3, 4};
  REQUIRE(s.numel() == 24);
  REQUIRE(s[-1] == 4);
  REQUIRE(to_string(s) == "[2, 3, 4]");
  REQUIRE(s == Shape{2, 3, 4});
  REQUIRE(!(s == Shape{2, 3}));
  REQUIRE_THROWS_WITH(s[3], "Shape: axis 3 of rank 3");
  REQUIRE_THROWS_WITH((Shape{2, -1}), "Shape: axis 1 has extent -1, expected at least 0");
  REQUIRE_THROWS_WITH((Shape{1, 1, 1, 1, 1, 1, 1}), "Shape: 7 axes, expected at most 6");
}
