// SPDX-License-Identifier: Apache-2.0
// load_balancing_loss and router_z_loss.
#include <espalier/ops/load_balancing_loss.hpp>
#include <espalier/ops/reference/moe.hpp>
#include <espalier/ops/router_z_loss.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

std::vector<int> ints(const Tensor<std::int32_t>& t) {
  return {t.data(), t.data() + t.numel()};
}

/// Two layers of n rows and a loss over both, against the reference over all 2 n rows.
template <class T, class Loss, class Reference>
void check(std::int64_t n, std::int64_t e, Loss loss, Reference reference) {
  using A = acc_t<T>;
  CAPTURE(n, e);
  const auto x = normal_of<T>(2 * n * e, 6, 1.5);
  const std::vector<double> first(x.begin(), x.begin() + n * e), second(x.begin() + n * e, x.end());
  const auto a = parameter(make_tensor<T>({n, e}, first));
  const auto b = parameter(make_tensor<T>({n, e}, second));
  const Var<A> value = loss(std::vector<Var<T>>{a, b});
  const Mismatch v =
      compare(to_vector(value.value()), std::vector<double>{reference(x)}, 0, tol<A>(e));
  backward(value, make_tensor<A>({1}, {3.0}));
  REQUIRE(a.grad().dtype() == dtype_of<T>::value);
  auto grad = to_vector(a.grad());
  const auto rest = to_vector(b.grad());
  grad.insert(grad.end(), rest.begin(), rest.end());
  auto want = complex_step_grad(reference, x);
  for (double& g : want) g *= 3;
  // Differences of terms: errors are in units of the terms, which are at most about 1 / rows.
  const Mismatch d = compare(grad, want, 4 * tol<A>(e) / static_cast<double>(n), tol<T>(e));
  INFO("loss: " << v << "; dlogits: " << d);
  REQUIRE(v.count == 0);
  REQUIRE(d.count == 0);
}

}  // namespace

TEST_CASE("load_balancing_loss: balanced routing costs K, collapse costs E", "[ops][routing]") {
  const Var<double> balanced(
      Tensor<double>({4, 4}, {3, 3, 0, 0, 0, 3, 3, 0, 0, 0, 3, 3, 3, 0, 0, 3}));
  REQUIRE(std::abs(load_balancing_loss<double, Cpu>({balanced}, 2).value()[0] - 2.0) <= 1e-12);
  const Var<double> collapsed(Tensor<double>({2, 4}, {99, 98.9, 0, 0, 98.9, 99, 0, 0}));
  REQUIRE(std::abs(load_balancing_loss<double, Cpu>({collapsed}, 2).value()[0] - 4.0) <= 1e-9);
}

TEMPLATE_TEST_CASE("load_balancing_loss: all layers together, and its gradient", "[ops][routing]",
                   float, bf16, double) {
  const std::int64_t n = GENERATE(1, 7), e = GENERATE(2, 5, 20), k = 2;
  const auto all = make_tensor<TestType>({2 * n, e}, normal_of<TestType>(2 * n * e, 6, 1.5));
  const auto chosen = ints(select_top_k(all, k));
  for_each_isa([&] {
    check<TestType>(
        n, e, [=](const auto& layers) { return load_balancing_loss(layers, k); },
        [&](const auto& z) { return reference::load_balancing_loss(z, chosen, 2 * n, e, k); });
  });
}

TEMPLATE_TEST_CASE("router_z_loss: all layers together, and its gradient", "[ops][routing]", float,
                   bf16, double) {
  const std::int64_t n = GENERATE(1, 7), e = GENERATE(1, 5, 20);
  for_each_isa([&] {
    check<TestType>(
        n, e, [](const auto& layers) { return router_z_loss(layers); },
        [&](const auto& z) { return reference::router_z_loss(z, 2 * n, e); });
  });
}

TEST_CASE("router_z_loss: by hand, and far out", "[ops][routing]") {
  const Var<float> z(Tensor<float>({2, 2}, {0, 0, 1000, -1000}));
  const double want = (std::log(2.0) * std::log(2.0) + 1e6) / 2;
  REQUIRE(std::abs(router_z_loss<float, Cpu>({z}).value()[0] - want) <= 1e-7 * want);
}

TEMPLATE_TEST_CASE("router losses: minus infinity is an expert that is off, NaN stays",
                   "[ops][routing]", float, bf16) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const auto off = parameter(make_tensor<TestType>({2, 3}, {0, -kInf, 0, 0, -kInf, 0}));
  const auto loss = router_z_loss<TestType, Cpu>({off});
  REQUIRE(std::abs(loss.value()[0] - 0.480453f) <= 1e-5f);
  backward(loss);
  const auto balance = load_balancing_loss<TestType, Cpu>({off}, 1);
  REQUIRE(std::abs(balance.value()[0] - 1.5f) <= 1e-5f);
  backward(balance);
  const auto d = to_vector(off.grad());
  REQUIRE((d[1] == 0 && d[4] == 0));
  for (const double g : d) REQUIRE(std::isfinite(g));
  const Var<TestType> bad(make_tensor<TestType>({2, 2}, {0, 1, NAN, 0}));
  REQUIRE(std::isnan(router_z_loss<TestType, Cpu>({bad}).value()[0]));
  REQUIRE(std::isnan(load_balancing_loss<TestType, Cpu>({bad}, 1).value()[0]));
}

TEMPLATE_TEST_CASE("router losses: the number of threads changes no bit", "[ops][routing]", float,
                   bf16) {
  const auto x = normal(3000 * 9, 1), z = normal(700 * 9, 2);
  require_same_bits_for_any_threads([&] {
    const auto a = parameter(make_tensor<TestType>({3000, 9}, x));
    const auto b = parameter(make_tensor<TestType>({700, 9}, z));
    const auto balance = load_balancing_loss<TestType, Cpu>({a, b}, 2);
    backward(balance);
    const auto size = router_z_loss<TestType, Cpu>({a, b});
    backward(size);
    return std::vector<AnyTensor>{balance.value(), size.value(), a.grad(), b.grad()};
  });
}

TEST_CASE("router losses: wrong arguments name both values", "[ops][routing]") {
  const Var<float> logits(Tensor<float>({2, 3}, 1.f)), x(Tensor<float>({5, 4}, 1.f));
  REQUIRE_THROWS_WITH((load_balancing_loss<float, Cpu>({logits, x}, 1)),
                      "load_balancing_loss: router logits are [5, 4], expected [tokens, 3]");
  REQUIRE_THROWS_WITH((load_balancing_loss<float, Cpu>({logits}, 4)),
                      "router_top_k: top_k is 4, expected 1 to 3 (the number of experts)");
  REQUIRE_THROWS_WITH((router_z_loss<float, Cpu>({logits, x})),
                      "router_z_loss: router logits are [5, 4], expected [tokens, 3]");
  REQUIRE_THROWS_WITH((router_z_loss<float, Cpu>({})), "router_z_loss: no router logits");
  REQUIRE_THROWS_WITH((router_z_loss<float, Cpu>({Var<float>(Tensor<float>(Shape{0, 3}))})),
                      "router_z_loss: router logits are [0, 3], expected a token");
}
