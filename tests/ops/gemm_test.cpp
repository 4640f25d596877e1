// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include <espalier/core/random.hpp>
#include <espalier/ops/cpu/gemm.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"

using namespace espalier;
using namespace espalier::test;
using Catch::Matchers::Contains;
using cpu::Isa;
using cpu::MatrixView;

namespace {

std::vector<Isa> allowed_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::plain, Isa::avx2, Isa::avx512}) {
    if (isa <= cpu::best_isa()) isas.push_back(isa);
  }
  return isas;
}

/// A matrix in memory of any type, with a row stride and garbage (NaN) between the rows, beside its
/// values in double.
struct Operand {
  std::int64_t rows, cols, stride;
  DType dtype;
  bool transposed;
  std::vector<double> values;  // [rows, cols]
  std::vector<std::byte> memory;

  MatrixView view() const { return {memory.data(), dtype, stride, transposed}; }
  double at(std::int64_t i, std::int64_t j) const { return values[i * cols + j]; }
};

template <class Draw>
Operand make_operand(std::int64_t rows, std::int64_t cols, DType dtype, bool transposed,
                     std::int64_t gap, Draw draw) {
  const std::int64_t height = transposed ? cols : rows, width = transposed ? rows : cols;
  Operand o{rows, cols, width + gap, dtype, transposed, {}, {}};
  o.values.resize(static_cast<std::size_t>(rows * cols));
  // Exactly as long as needed: reading behind the last element is an error that ASan sees.
  const std::int64_t length = height == 0 ? 0 : (height - 1) * o.stride + width;
  o.memory.resize(static_cast<std::size_t>(length) * size_of(dtype));
  visit_dtype<double, float, bf16, f16>("test", dtype, [&]<class M>() {
    const auto narrow = [](double x) {
      if constexpr (sizeof(M) == 2) {
        return M(static_cast<float>(x));
      } else {
        return static_cast<M>(x);
      }
    };
    std::vector<M> memory(static_cast<std::size_t>(length), narrow(std::nan("")));
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        const M x = narrow(draw(i * cols + j));
        memory[transposed ? j * o.stride + i : i * o.stride + j] = x;
        if constexpr (sizeof(M) == 2) {
          o.values[i * cols + j] = static_cast<double>(static_cast<float>(x));
        } else {
          o.values[i * cols + j] = static_cast<double>(x);
        }
      }
    }
    if (length > 0) std::memcpy(o.memory.data(), memory.data(), o.memory.size());
  });
  return o;
}

auto normals(std::uint64_t seed) {
  return [philox = Philox(seed)](std::int64_t i) {
    return static_cast<double>(philox.normal(static_cast<std::uint64_t>(i)));
  };
}
auto small_integers(std::uint64_t seed) {
  return [philox = Philox(seed)](std::int64_t i) {
    return static_cast<double>(philox.below(static_cast<std::uint64_t>(i), 9)) - 4.0;
  };
}

/// [m, n] without gaps, plus the sum of |terms| of each element: what the error is relative to.
struct Reference {
  std::vector<double> c, magnitude;
};
Reference reference(const Operand& a, const Operand& b, double alpha, double beta,
                    const std::vector<double>& c) {
  Reference r;
  for (std::int64_t i = 0; i < a.rows; ++i) {
    for (std::int64_t j = 0; j < b.cols; ++j) {
      double sum = 0, magnitude = 0;
      for (std::int64_t k = 0; k < a.cols; ++k) {
        sum += a.at(i, k) * b.at(k, j);
        magnitude += std::abs(a.at(i, k) * b.at(k, j));
      }
      const double old = c[i * b.cols + j];
      r.c.push_back(alpha * sum + (beta == 0 ? 0 : beta * old));
      r.magnitude.push_back(std::abs(alpha) * magnitude + std::abs(beta * old));
    }
  }
  return r;
}

/// Runs one product with a gap between the rows of C and checks values and gaps.
template <FloatElement T>
void check_product(const Operand& a, const Operand& b, double alpha, double beta, bool exact) {
  const std::int64_t m = a.rows, n = b.cols, k = a.cols, stride = n + 3;
  const T gap = T{77};
  std::vector<double> before(static_cast<std::size_t>(m * n));
  std::vector<T> c(static_cast<std::size_t>(m * stride), gap);
  for (std::int64_t i = 0; i < m * n; ++i) {
    before[i] = small_integers(99)(i);
    c[i / n * stride + i % n] =
        beta == 0 ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(before[i]);
  }
  cpu::gemm<T>(m, n, k, a.view(), b.view(), c.data(), stride, static_cast<T>(alpha),
               static_cast<T>(beta));
  const Reference want = reference(a, b, alpha, beta, before);
  const double rtol = tol(dtype_of<T>::value, k);
  std::size_t wrong = 0;
  std::string first;
  for (std::int64_t i = 0; i < m; ++i) {
    for (std::int64_t j = 0; j < stride; ++j) {
      const double got = static_cast<double>(c[i * stride + j]);
      if (j >= n) {
        if (got == static_cast<double>(gap)) continue;
      } else {
        const double limit = exact ? 0.0 : rtol * want.magnitude[i * n + j];
        if (std::abs(got - want.c[i * n + j]) <= limit) continue;
      }
      if (wrong++ == 0) {
        first = detail::concat("c[", i, ",", j, "] is ", got, ", want ",
                               j < n ? want.c[i * n + j] : static_cast<double>(gap));
      }
    }
  }
  INFO("m n k " << m << ' ' << n << ' ' << k << ", a " << name(a.dtype) << (a.transposed ? "T" : "")
                << ", b " << name(b.dtype) << (b.transposed ? "T" : "") << ", alpha " << alpha
                << ", beta " << beta << ": " << wrong << " wrong; " << first);
  CHECK(wrong == 0);
}

struct Size {
  std::int64_t m, n, k;
};

template <FloatElement T>
std::vector<T> product(const Operand& a, const Operand& b) {
  std::vector<T> c(static_cast<std::size_t>(a.rows * b.cols));
  cpu::gemm<T>(a.rows, b.cols, a.cols, a.view(), b.view(), c.data(), b.cols);
  return c;
}
template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace

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
  for (const Isa isa : allowed_isas()) {
    const cpu::IsaOverride forced(isa);
    const auto a = make_operand(512, 900, DType::f32, false, 0, normals(17));
    const auto b = make_operand(900, 90, DType::bf16, true, 0, normals(18));
    const auto want = product<float>(a, b);
    for (const std::int64_t m : {1, 2, 3, 5, 8, 14, 31, 100}) {
      std::vector<float> got(static_cast<std::size_t>(m * 90));
      cpu::gemm<float>(m, 90, 900, a.view(), b.view(), got.data(), 90);
      CAPTURE(name(isa), m);
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
