// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/matmul.hpp>
#include <espalier/ops/reference/matmul.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"

using namespace espalier;
using namespace espalier::test;
using reference::MatmulShape;

namespace {

template <class T>
struct Case {
  MatmulShape s;
  std::vector<double> a = normal_of<T>(s.batch * s.m * s.k, 1);
  std::vector<double> b = normal_of<T>(s.batch * s.k * s.n, 2);
  std::vector<double> c = normal_of<T>(s.batch * s.m * s.n, 3);
  std::vector<double> dy = normal_of<T>(s.batch * s.m * s.n, 4);

  Shape shape(std::int64_t rows, std::int64_t cols, bool transposed = false) const {
    return transposed ? Shape{s.batch, cols, rows} : Shape{s.batch, rows, cols};
  }
};

template <class T>
std::vector<AnyTensor> run(const Case<T>& p, bool add) {  // y, da, db, [dc]
  const MatmulShape& s = p.s;
  const auto a = parameter(make_tensor<T>(p.shape(s.m, s.k, s.transpose_a), p.a));
  const auto b = parameter(make_tensor<T>(p.shape(s.k, s.n, s.transpose_b), p.b));
  const auto c = parameter(make_tensor<T>(p.shape(s.m, s.n), p.c));
  const MatmulOptions options{s.transpose_a, s.transpose_b};
  const auto y = add ? matmul_add(a, b, c, options) : matmul(a, b, options);
  backward(y, make_tensor<T>(p.shape(s.m, s.n), p.dy));
  REQUIRE(to_vector(c.value()) == p.c);
  if (add) return {y.value(), a.grad(), b.grad(), c.grad()};
  return {y.value(), a.grad(), b.grad()};
}

/// da and db by the definition: every product adds dy times the other factor.
std::array<std::vector<double>, 2> gradients(const Case<double>& p) {
  const MatmulShape& s = p.s;
  std::array<std::vector<double>, 2> grads{std::vector<double>(p.a.size()),
                                           std::vector<double>(p.b.size())};
  for (std::int64_t at = 0; at < s.batch * s.m * s.n; ++at) {
    const std::int64_t l = at / (s.m * s.n), i = at / s.n % s.m, j = at % s.n;
    for (std::int64_t q = 0; q < s.k; ++q) {
      const auto of_a = l * s.m * s.k + (s.transpose_a ? q * s.m + i : i * s.k + q);
      const auto of_b = l * s.k * s.n + (s.transpose_b ? j * s.k + q : q * s.n + j);
      grads[0][of_a] += p.dy[at] * p.b[of_b];
      grads[1][of_b] += p.dy[at] * p.a[of_a];
    }
  }
  return grads;
}

template <class T>
void check(const MatmulShape& s) {
  const Case<T> p{s};
  const auto want = gradients({s, p.a, p.b, p.c, p.dy});
  for (const bool add : {false, true}) {
    CAPTURE(s.batch, s.m, s.n, s.k, s.transpose_a, s.transpose_b, add);
    const auto got = run(p, add);
    const auto y = reference::matmul(s, p.a, p.b, add ? p.c : std::vector<double>{});
    const auto close = [&](const AnyTensor& x, const std::vector<double>& ref, std::int64_t terms) {
      const double sum = tol<acc_t<T>>(terms);
      const Mismatch m = compare(to_vector(x), ref, 4 * sum, tol<T>(terms));
      INFO(m);
      REQUIRE(m.count == 0);
    };
    close(got[0], y, s.k + 1);
    close(got[1], want[0], s.n);
    close(got[2], want[1], s.m);
    if (add) REQUIRE(to_vector(got[3]) == p.dy);
  }
}

}  // namespace

TEST_CASE("matmul: by hand, and added to a third matrix", "[ops][matmul]") {
  const Var<double> a(Tensor<double>({2, 2}, {1, 2, 3, 4}));
  const Var<double> b(Tensor<double>({2, 2}, {5, 6, 7, 8}));
  REQUIRE(to_vector(matmul(a, b).value()) == std::vector<double>{19, 22, 43, 50});
  REQUIRE(to_vector(matmul(a, b, {.transpose_a = true}).value()) ==
          std::vector<double>{26, 30, 38, 44});
  REQUIRE(to_vector(matmul(a, b, {.transpose_b = true}).value()) ==
          std::vector<double>{17, 23, 39, 53});
  REQUIRE(to_vector(matmul_add(a, b, a).value()) == std::vector<double>{20, 24, 46, 54});
}

TEST_CASE("matmul: the reference gradients match the complex step", "[ops][matmul]") {
  const Case<double> p{{2, 2, 3, 4, GENERATE(false, true), GENERATE(false, true)}};
  const auto grads = gradients(p);
  const auto of_a = complex_step_grad(
      [&](const auto& z) { return dot(p.dy, reference::matmul(p.s, z, to_complex(p.b))); }, p.a);
  const auto of_b = complex_step_grad(
      [&](const auto& z) { return dot(p.dy, reference::matmul(p.s, to_complex(p.a), z)); }, p.b);
  REQUIRE(compare(grads[0], of_a, 1e-14, 1e-13).count == 0);
  REQUIRE(compare(grads[1], of_b, 1e-14, 1e-13).count == 0);
}

TEMPLATE_TEST_CASE("matmul: values and gradients match the reference", "[ops][matmul]", float, bf16,
                   double) {
  const bool ta = GENERATE(false, true), tb = GENERATE(false, true);
  for_each_isa([&] {
    check<TestType>({1, 1, 1, 1, ta, tb});
    check<TestType>({1, 7, 33, 20, ta, tb});
    check<TestType>({3, 17, 5, 9, ta, tb});
  });
  check<TestType>({2, 64, 70, 300, ta, tb});
  check<TestType>({1, 0, 3, 4, ta, tb});
  check<TestType>({1, 3, 0, 4, ta, tb});
  check<TestType>({1, 3, 4, 0, ta, tb});
  check<TestType>({0, 3, 4, 5, ta, tb});
}

TEST_CASE("matmul: small integers come out exactly", "[ops][matmul]") {
  const std::int64_t m = 37, n = 29, k = 45;
  std::vector<double> a, b;
  for (std::int64_t i = 0; i < m * k; ++i) a.push_back(static_cast<double>(i * 7 % 5 - 2));
  for (std::int64_t i = 0; i < k * n; ++i) b.push_back(static_cast<double>(i * 11 % 7 - 3));
  const Var<float> va(make_tensor<float>({m, k}, a)), vb(make_tensor<float>({k, n}, b));
  REQUIRE(to_vector(matmul(va, vb).value()) == reference::matmul({1, m, n, k, false, false}, a, b));
}

TEST_CASE("matmul: NaN and infinity reach their row and column only", "[ops][matmul]") {
  const Var<float> a(Tensor<float>({2, 2}, {NAN, 1, 1, 1}));
  const Var<float> b(Tensor<float>({2, 2}, {INFINITY, 1, 1, 1}));
  const auto y = matmul(a, b).value();
  REQUIRE((std::isnan(y[0]) && std::isnan(y[1]) && y[2] == INFINITY && y[3] == 2));
}

TEST_CASE("matmul: a constant factor costs no gradient and saves nothing", "[ops][matmul]") {
  const auto a = parameter(Tensor<float>({2, 2}, {1, 2, 3, 4}));
  Tensor<float> constant({2, 2}, {5, 6, 7, 8});
  const auto y = matmul(a, Var<float>(constant));
  REQUIRE(a.value().use_count() == 2);  // the variable's handle and the one asked for
  backward(y);
  REQUIRE(to_vector(a.grad()) == std::vector<double>{11, 15, 11, 15});
}

TEMPLATE_TEST_CASE("matmul: the number of threads changes no bit", "[ops][matmul]", float, bf16) {
  const Case<TestType> p{{2, 150, 130, 170, false, true}};
  require_same_bits_for_any_threads([&] { return run(p, true); });
}

TEST_CASE("matmul: wrong shapes name all", "[ops][matmul]") {
  const Var<float> a(Tensor<float>({2, 3}, 1.f)), b(Tensor<float>({2, 4}, 1.f));
  REQUIRE_THROWS_WITH(matmul(a, b),
                      "matmul: a is [2, 3], b is [2, 4]; expected [..., M, K] and [..., K, N]");
  REQUIRE_THROWS_WITH(matmul(a, b, {.transpose_a = true, .transpose_b = true}),
                      "matmul: a is [2, 3] transposed, b is [2, 4] transposed; expected [..., M, "
                      "K] and [..., K, N]");
  REQUIRE_THROWS_WITH(matmul_add(a, b, a, {.transpose_a = true}),
                      "matmul: c is [2, 3], expected [3, 4]");
}
