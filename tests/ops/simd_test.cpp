// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <espalier/core/random.hpp>
#include <espalier/ops/cpu/simd.hpp>

#include "support/catch.hpp"
#include "support/each.hpp"

using namespace espalier;
using Catch::Matchers::Contains;
using cpu::Isa;
using espalier::test::for_each_isa;

namespace {

const float kInf = std::numeric_limits<float>::infinity();
const float kNan = std::numeric_limits<float>::quiet_NaN();

template <class T, class F>
std::vector<T> map(const std::vector<T>& x, F f) {
  std::vector<T> y(x.size());
  simd::dispatch([&]<int W>() {
    using V = simd::Native<T, W>;
    const int n = static_cast<int>(x.size());
    int i = 0;
    for (; i + V::kLanes <= n; i += V::kLanes) f(V::load(&x[i])).store(&y[i]);
    if (i < n) f(V::load_partial(&x[i], n - i)).store_partial(&y[i], n - i);
  });
  return y;
}

/// Distance from the exact value in units of the last place of the nearest T.
template <class T>
double ulps(T got, double want) {
  const T nearest = static_cast<T>(want);
  if (std::isnan(want)) return std::isnan(got) ? 0 : 1e9;
  if (std::isinf(nearest) || nearest == 0) return got == nearest ? 0 : 1e9;
  const double unit = std::nextafter(std::abs(nearest), std::numeric_limits<T>::infinity()) -
                      static_cast<double>(std::abs(nearest));
  return std::abs(static_cast<double>(got) - want) / unit;
}

/// A sample of all float bit patterns: every exponent and sign, NaN and infinities included.
std::vector<float> floats_of_every_kind() {
  std::vector<float> x = {0.0f, -0.0f, kInf, -kInf, kNan, 88.72283f, 88.72284f, -103.97f, -103.98f};
  const Philox philox(3);
  for (std::uint32_t high = 0; high < (1u << 16); ++high) {
    for (std::uint32_t i = 0; i < 4; ++i) {
      x.push_back(std::bit_cast<float>((high << 16) | (philox.bits(4 * high + i) & 0xffffu)));
    }
  }
  for (int i = 0; i < 40000; ++i) x.push_back(-110.0f + 0.005f * static_cast<float>(i));
  return x;
}

}  // namespace

TEST_CASE("simd: exp is within 2 ulp of every kind of float", "[ops][simd]") {
  const std::vector<float> x = floats_of_every_kind();
  for_each_isa([&] {
    const auto y = map(x, [](const auto& v) { return exp(v); });
    double worst = 0;
    float at = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double error = ulps(y[i], std::exp(static_cast<double>(x[i])));
      if (!(error <= worst)) worst = error, at = x[i];
    }
    INFO("at " << at);
    CHECK(worst <= 2);
  });
}

TEST_CASE("simd: exp_normal is within 2 ulp where it is defined", "[ops][simd]") {
  std::vector<float> x = floats_of_every_kind();
  std::erase_if(x, [](float v) { return v < -87 || v > 88; });
  for_each_isa([&] {
    const auto y = map(x, [](const auto& v) { return exp_normal(v); });
    double worst = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double error = ulps(y[i], std::exp(static_cast<double>(x[i])));
      if (!(error <= worst)) worst = error;
    }
    CHECK(worst <= 2);
  });
}

TEST_CASE("simd: sigmoid keeps its relative accuracy in both tails, down to normal numbers",
          "[ops][simd]") {
  const std::vector<float> x = floats_of_every_kind();
  const double least = std::numeric_limits<float>::min();
  for_each_isa([&] {
    const auto y = map(x, [](const auto& v) { return simd::sigmoid(v); });
    const auto z = map(x, [](const auto& v) { return simd::sigmoid_and_rest(-v).rest; });
    double worst = 0;
    float at = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double want = 1 / (1 + std::exp(-static_cast<double>(x[i])));
      const bool tiny = want < 1.0001 * least;
      double error = tiny ? std::abs(y[i] - want) / least : ulps(y[i], want);
      error = std::max(error, tiny ? std::abs(z[i] - want) / least : ulps(z[i], want));
      if (!(error <= worst)) worst = error, at = x[i];
    }
    INFO("at " << at);
    CHECK(worst <= 4);
  });
}

TEST_CASE("simd: functions of double agree with the standard library", "[ops][simd]") {
  const std::vector<double> x = {0.0, 1.0, 0.3, 700.0, 1e-300, 2.5, 1e300};
  for_each_isa([&] {
    const auto e = map(x, [](const auto& v) { return exp(v); });
    const auto l = map(x, [](const auto& v) { return log(v); });
    const auto r = map(x, [](const auto& v) { return sqrt(v); });
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(e[i] == std::exp(x[i]));
      CHECK(l[i] == std::log(x[i]));
      CHECK(r[i] == std::sqrt(x[i]));
    }
  });
}

TEMPLATE_TEST_CASE("simd: arithmetic works lane by lane", "[ops][simd]", float, double) {
  using T = TestType;
  const std::vector<T> x = {1,  -2,  T(3.5), 0,  T(-0.0), 7,  -8, 9, 10,
                            11, -12, 13,     14, 15,      16, 17, 18};
  for_each_isa([&] {
    const auto y = map(x, [](const auto& v) {
      using V = std::remove_cvref_t<decltype(v)>;
      V sum = v + V(T(2));
      sum -= V(T(1));
      return max(min(fma(sum, v, -v) / V(T(4)), V(T(50))), -abs(v) * V(T(3)));
    });
    for (std::size_t i = 0; i < x.size(); ++i) {
      const T square = x[i] * x[i] / 4;  // (x + 1) x - x
      CHECK(y[i] == std::max(std::min(square, T(50)), -3 * std::abs(x[i])));
    }
    const auto signs = map(x, [](const auto& v) {
      using V = std::remove_cvref_t<decltype(v)>;
      return select(v < V(T(0)), V(T(-1)), select(v > V(T(0)), V(T(1)), V(T(-0.0))));
    });
    for (std::size_t i = 0; i < x.size(); ++i) {
      CHECK(signs[i] == (x[i] < 0 ? -1 : x[i] > 0 ? 1 : 0));
      CHECK(std::signbit(signs[i]) == (x[i] < 0 || x[i] == 0));
    }
  });
}

TEMPLATE_TEST_CASE("simd: sum and max reduce all lanes in one fixed order", "[ops][simd]", float,
                   double) {
  using T = TestType;
  for_each_isa([] {
    simd::dispatch([]<int W>() {
      using V = simd::Native<T, W>;
      std::vector<T> x(V::kLanes);
      for (int i = 0; i < V::kLanes; ++i) x[i] = static_cast<T>(std::sin(i + 1.0));
      const auto max_want = *std::max_element(x.begin(), x.end());
      const T sum_got = sum(V::load(x.data())), max_got = max(V::load(x.data()));
      for (int half = V::kLanes / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; ++i) x[i] += x[i + half];
      }
      CHECK(sum_got == x[0]);
      CHECK(max_got == max_want);
    });
  });
}

TEMPLATE_TEST_CASE("simd: every 2-byte float widens as its scalar conversion does", "[ops][simd]",
                   bf16, f16) {
  using M = TestType;
  std::vector<M> narrow(1 << 16);
  for (std::uint32_t i = 0; i < narrow.size(); ++i) narrow[i].bits = static_cast<std::uint16_t>(i);
  for_each_isa([&] {
    std::vector<float> wide(narrow.size());
    std::vector<double> wider(narrow.size());
    simd::dispatch([&]<int W>() {
      using D = simd::Native<double, W>;
      for (std::size_t i = 0; i < narrow.size(); i += W) {
        simd::Vec<float, W>::load(&narrow[i]).store(&wide[i]);
      }
      for (std::size_t i = 0; i < narrow.size(); i += D::kLanes)
        D::load(&narrow[i]).store(&wider[i]);
    });
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < narrow.size(); ++i) {
      const float want = static_cast<float>(narrow[i]);
      const bool nan = std::isnan(want);
      wrong += nan ? !std::isnan(wide[i]) : wide[i] != want;
      wrong += nan ? !std::isnan(wider[i]) : wider[i] != want;
      wrong += !nan && std::signbit(wide[i]) != std::signbit(want);
    }
    CHECK(wrong == 0);
  });
}

TEMPLATE_TEST_CASE("simd: stores to 2-byte floats round as the scalar conversion does",
                   "[ops][simd]", bf16, f16) {
  using M = TestType;
  std::vector<float> x = floats_of_every_kind();
  x.resize(x.size() / 16 * 16);
  for_each_isa([&] {
    std::vector<M> narrow(x.size());
    simd::dispatch([&]<int W>() {
      for (std::size_t i = 0; i < x.size(); i += W) {
        simd::Vec<float, W>::load(&x[i]).store(&narrow[i]);
      }
    });
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < x.size(); ++i) wrong += narrow[i].bits != M(x[i]).bits;
    CHECK(wrong == 0);
  });
}

TEST_CASE("simd: a pair holds what two vectors in order would", "[ops][simd]") {
  std::vector<float> x = floats_of_every_kind();
  x.resize(x.size() / 32 * 32);
  std::vector<bf16> narrow(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) narrow[i] = bf16(x[i]);
  for_each_isa([&] {
    std::vector<bf16> rounded(x.size()), again(x.size());
    simd::dispatch([&]<int W>() {
      for (std::size_t i = 0; i < x.size(); i += 2 * W) {
        simd::Pair<W>::load(&x[i]).store(&rounded[i]);
        simd::Pair<W>::load(&narrow[i]).store(&again[i]);
      }
    });
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      wrong += rounded[i].bits != narrow[i].bits;
      wrong += again[i].bits != narrow[i].bits;
    }
    CHECK(wrong == 0);
  });
}

TEMPLATE_TEST_CASE("simd: partial loads and stores touch only what they name", "[ops][simd]", float,
                   double, bf16) {
  using M = TestType;
  using T = std::conditional_t<std::is_same_v<M, double>, double, float>;
  for_each_isa([] {
    simd::dispatch([]<int W>() {
      using V = simd::Native<T, W>;
      for (int n = 0; n < V::kLanes; ++n) {
        std::vector<M> from(static_cast<std::size_t>(n));  // exact size: ASan sees one more
        for (int i = 0; i < n; ++i) from[i] = M(static_cast<T>(i + 1));
        const V v = V::load_partial(from.data(), n);
        std::vector<M> to(V::kLanes, M(static_cast<T>(99)));
        v.store_partial(to.data(), n);
        bool right = true;
        for (int i = 0; i < V::kLanes; ++i) {
          right = right && v[i] == static_cast<T>(i < n ? i + 1 : 0);
          right = right && static_cast<T>(to[i]) == static_cast<T>(i < n ? i + 1 : 99);
        }
        CHECK(right);
      }
    });
  });
}

TEST_CASE("simd: for_each_vector and sum_over reach every element once", "[ops][simd]") {
  for_each_isa([] {
    for (std::int64_t n = 0; n < 150; ++n) {
      std::vector<float> x(static_cast<std::size_t>(n)), y(x.size(), 0.f);  // ASan sees one more
      for (std::int64_t i = 0; i < n; ++i) x[i] = static_cast<float>(i + 1);
      float total = 0;
      simd::dispatch([&]<int W>() {
        using V = simd::Native<float, W>;
        simd::for_each_vector<V>(0, n, [&](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
          (V::load(x.data() + i, lanes) + V::load(y.data() + i, lanes)).store(y.data() + i, lanes);
        });
        total = simd::sum_over<V>(n, [&](std::int64_t i, auto lanes, const V& sum) ESP_SIMD_LAMBDA {
          return sum + V::load(x.data() + i, lanes);
        });
      });
      CAPTURE(n);
      CHECK(x == y);
      const std::int64_t twice = n * (n + 1);
      CHECK(2 * total == static_cast<float>(twice));
    }
  });
}

TEST_CASE("simd: fma rounds once where the processor can", "[ops][simd]") {
  // (1 + e)(1 - e) - 1 = -e^2 is lost when the product is rounded first.
  const float e = 0x1p-13f;
  const std::vector<float> x(16, 1 + e);
  for (const Isa isa : cpu::kIsas) {
    if (isa < Isa::avx2 || isa > cpu::best_isa()) continue;
    const cpu::IsaOverride forced(isa);
    const auto y = map(x, [&](const auto& v) {
      using V = std::remove_cvref_t<decltype(v)>;
      return fma(v, V(1 - e), V(-1.0f));
    });
    CAPTURE(name(isa));
#ifdef __OPTIMIZE__
    CHECK(y[0] == -e * e);
#else
    CHECK(std::abs(y[0]) <= e * e);  // unoptimised code may round twice
#endif
  }
}

TEST_CASE("isa: only what the processor has can be asked for", "[ops][simd]") {
  CHECK(cpu::isa() <= cpu::best_isa());
  {
    const cpu::IsaOverride outer(Isa::plain);
    CHECK(cpu::isa() == Isa::plain);
    CHECK(simd::dispatch([]<int W>() { return W; }) == 4);
  }
  CHECK(simd::dispatch([]<int W>() { return W; }) == (cpu::isa() >= Isa::avx512 ? 16
                                                      : cpu::isa() == Isa::avx2 ? 8
                                                                                : 4));
  CHECK(cpu::fastest_isa() <= cpu::best_isa());
  for (const Isa isa : cpu::kIsas) {
    if (isa <= cpu::best_isa()) continue;
    CHECK_THROWS_WITH(cpu::IsaOverride(isa),
                      Contains(detail::concat({"asks for ", name(isa), ", but this processor"})));
  }
}

TEST_CASE("isa: the environment variable is checked", "[ops][simd]") {
  const char* before = std::getenv("ESPALIER_ISA");
  const std::string kept = before ? before : "";
  setenv("ESPALIER_ISA", "avx1024", 1);
  CHECK_THROWS_WITH(cpu::detail::isa_of_environment(),
                    "ESPALIER_ISA is 'avx1024'; expected amx, avx512_bf16, avx512, avx2 or plain");
  setenv("ESPALIER_ISA", "plain", 1);
  CHECK(cpu::detail::isa_of_environment() == Isa::plain);
  if (before) {
    setenv("ESPALIER_ISA", kept.c_str(), 1);
  } else {
    unsetenv("ESPALIER_ISA");
  }
}
