// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/add.hpp>
#include <espalier/ops/scale.hpp>
#include <espalier/ops/sum.hpp>
#include <espalier/ops/swiglu.hpp>

#include <thread>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

using V = Var<float>;
using Values = std::vector<double>;

V leaf(const Values& values) {
  return parameter(make_tensor<float>({static_cast<std::int64_t>(values.size())}, values));
}
Values grad_of(const AnyVar& v) {
  return v.grad() ? to_vector(v.grad()) : Values{};
}

// An op of two inputs that says which of its gradients were asked for.
struct Probe {
  static constexpr const char* kName = "probe";
  std::vector<std::vector<bool>>* asked;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& a, const Tensor<T, D>&) const {
    asked->push_back(saved.needs);
    return a.clone();
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 2> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    asked->push_back(saved.needs);
    return {dy, Tensor<T, D>(dy.shape(), T(10))};
  }
};

}  // namespace

TEST_CASE("backward: misuse is refused", "[autograd][var]") {
  const V constant(Tensor<float>({1}, 1.f));
  REQUIRE_THROWS_WITH(backward(constant), "backward: the value does not depend on any parameter");
  const auto a = parameter(Tensor<float>({2}, 1.f));
  const auto y = sum(a);
  REQUIRE_THROWS_WITH(backward(y, Tensor<float>({2}, 1.f)),
                      "backward: the value is [1], its gradient [2]");
  REQUIRE_THROWS_WITH(backward(y, Tensor<double>({1}, 1.)),
                      "backward: the value is f32, its gradient f64");
  REQUIRE(!a.grad());
  backward(y);
  REQUIRE_THROWS_WITH(backward(y),
                      "backward: the graph through 'sum' was already used; run the forward again");
  REQUIRE_THROWS_WITH(y.set_grad_mode(GradMode::ignore),
                      "set_grad_mode: the value is no parameter");
  REQUIRE_THROWS_WITH(constant.set_grad_mode({}), "set_grad_mode: the value is no parameter");
}

TEST_CASE("backward: a graph used in part gives no gradient at all", "[autograd][var]") {
  const V a = leaf({1, 2}), b = leaf({3, 4});
  const V shared = scale(a, 2);
  backward(sum(shared));
  const V other = add(shared, b);
  REQUIRE_THROWS_WITH(
      backward(sum(other)),
      "backward: the graph through 'scale' was already used; run the forward again");
  REQUIRE(!b.grad());
  REQUIRE(grad_of(a) == Values{2, 2});
}

TEST_CASE("NoGrad: no graph while it lives, nested too", "[autograd][var]") {
  const V a = leaf({1});
  {
    const NoGrad outer;
    REQUIRE(!sum(a).requires_grad());
    { const NoGrad inner; }
    REQUIRE(!sum(a).requires_grad());
  }
  REQUIRE(sum(a).requires_grad());
}

TEST_CASE("backward: values used many times have the gradient of the formula", "[autograd][var]") {
  // y = sum(swiglu(s, s) + 3 s) with s = a + b + a.
  const Values a = normal(37, 1), b = normal(37, 2);
  const auto formula = [](const auto& x, std::size_t n) {
    auto total = x[0] * 0.0;
    for (std::size_t i = 0; i < n; ++i) {
      const auto s = x[i] + x[n + i] + x[i];
      total += s / (1.0 + std::exp(-s)) * s + 3.0 * s;
    }
    return total;
  };
  Values both = a;
  both.insert(both.end(), b.begin(), b.end());
  const Values want = complex_step_grad([&](const auto& x) { return formula(x, a.size()); }, both);
  const auto check = [&]<class T>(T) {
    const auto va = parameter(make_tensor<T>({37}, a)), vb = parameter(make_tensor<T>({37}, b));
    const auto s = add(add(va, vb), va);
    backward(sum(add(swiglu(s, s), scale(s, 3))));
    Values got = to_vector(va.grad());
    const Values db = to_vector(vb.grad());
    got.insert(got.end(), db.begin(), db.end());
    const Mismatch m = compare(got, want, tol(dtype_of<T>::value, 8), tol(dtype_of<T>::value, 8));
    INFO(m);
    REQUIRE(m.count == 0);
  };
  check(float{});
  check(double{});
}

TEST_CASE("backward: leaves accumulate, overwrite or ignore as the backward pass says",
          "[autograd][var]") {
  const V a = leaf({1, 2}), b = leaf({3, 4});
  const auto loss = [&] { return sum(add(scale(a, 2), scale(add(a, b), 3))); };
  backward(loss());
  REQUIRE(grad_of(a) == Values{5, 5});
  backward(loss());
  REQUIRE(grad_of(a) == Values{10, 10});
  const AnyTensor held = a.grad();
  backward(loss(), {.mode = GradMode::overwrite});
  REQUIRE(grad_of(a) == Values{5, 5});
  REQUIRE(grad_of(b) == Values{3, 3});
  REQUIRE(to_vector(held) == Values{10, 10});  // a gradient that someone keeps is not written
  backward(loss(), {.mode = GradMode::ignore});
  REQUIRE(grad_of(a) == Values{5, 5});
  backward(loss(), {.seed = Tensor<float>({1}, -1.f)});
  REQUIRE(grad_of(a) == Values{0, 0});
  backward(a, {.seed = make_tensor<float>({2}, {7, 8})});  // a leaf by itself
  REQUIRE(grad_of(a) == Values{7, 8});
}

TEST_CASE("backward: a leaf's own mode goes before that of the backward pass", "[autograd][var]") {
  const V a = leaf({1, 2}), b = leaf({3, 4});
  const auto loss = [&] { return sum(add(a, b)); };
  a.set_grad_mode(GradMode::overwrite);
  backward(loss());
  backward(loss());
  REQUIRE(grad_of(a) == Values{1, 1});
  REQUIRE(grad_of(b) == Values{2, 2});
  a.set_grad_mode(GradMode::accumulate);
  backward(loss(), {.mode = GradMode::ignore});
  REQUIRE(grad_of(a) == Values{2, 2});
  REQUIRE(grad_of(b) == Values{2, 2});
  a.set_grad_mode({});
  backward(loss(), {.mode = GradMode::overwrite});
  REQUIRE(grad_of(a) == Values{1, 1});
}

TEST_CASE("backward: nothing is computed for leaves that ignore", "[autograd][var]") {
  std::vector<std::vector<bool>> asked;
  const V a = leaf({1, 2}), b = leaf({3, 4});
  const auto y = [&] { return sum(apply(Probe{&asked}, a, b)); };
  using Asked = std::vector<std::vector<bool>>;

  backward(y());
  REQUIRE(asked == Asked{{true, true}, {true, true}});
  REQUIRE(grad_of(b) == Values{10, 10});

  asked.clear();
  b.set_grad_mode(GradMode::ignore);  // frozen before the forward: taken for a constant
  REQUIRE(!b.requires_grad());
  backward(y());
  REQUIRE(asked == Asked{{true, false}, {true, false}});
  REQUIRE(grad_of(b) == Values{10, 10});

  asked.clear();
  b.set_grad_mode({});
  const V frozen_later = y();
  b.set_grad_mode(GradMode::ignore);
  backward(frozen_later);
  REQUIRE(asked == Asked{{true, true}, {true, false}});
  REQUIRE(grad_of(b) == Values{10, 10});

  asked.clear();
  const V unfrozen_later = y();  // nothing was saved for it, so it gets nothing
  b.set_grad_mode({});
  backward(unfrozen_later);
  REQUIRE(asked == Asked{{true, false}, {true, false}});

  asked.clear();
  const V unused = y();
  backward(unused, {.mode = GradMode::ignore});
  REQUIRE(asked.size() == 1);
  backward(unused);  // unused saved tensors are still there
  REQUIRE(asked.size() == 2);
  REQUIRE(grad_of(a) == Values{5, 5});

  a.set_grad_mode(GradMode::ignore);
  b.set_grad_mode(GradMode::ignore);
  REQUIRE(!y().requires_grad());
}

TEST_CASE("backward: bf16 gradients are added in f32 and rounded once a sum", "[autograd][var]") {
  const std::int64_t n = 1000;
  const Values first = normal(n, 1), second = normal(n, 2);
  const auto a = parameter(make_tensor<bf16>({n}, Values(n, 0)));
  const AnyTensor g1 = make_tensor<bf16>({n}, first), g2 = make_tensor<bf16>({n}, second);
  backward(a, {.seed = g1});
  backward(a, {.seed = g2});
  const Values x = to_vector(g1), y = to_vector(g2);
  Values want;
  for (std::size_t i = 0; i < x.size(); ++i) {
    want.push_back(static_cast<float>(bf16(static_cast<float>(x[i]) + static_cast<float>(y[i]))));
  }
  REQUIRE(a.grad().dtype() == DType::bf16);
  REQUIRE(to_vector(a.grad()) == want);
  backward(a);  // ones
  REQUIRE(a.grad().dtype() == DType::bf16);
}

TEST_CASE("backward: sums of gradients have the same bits for any number of threads",
          "[autograd][var]") {
  const auto run = [&]<class T>(T, std::int64_t n) {
    const Tensor<T> x = make_tensor<T>({n}, normal(n, 3)), y = make_tensor<T>({n}, normal(n, 4));
    const auto sum_with = [&](int threads) {
      set_num_threads(threads);
      const auto a = parameter(x);
      backward(a, {.seed = x.clone()});
      backward(a, {.seed = y.clone()});
      set_num_threads(2);
      return a.grad();
    };
    const AnyTensor want = sum_with(1);
    int wrong = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const auto one = static_cast<acc_t<T>>(x[i]) + static_cast<acc_t<T>>(y[i]);
      wrong += !(static_cast<acc_t<T>>(Tensor<T>(want)[i]) ==
                 static_cast<acc_t<T>>(static_cast<T>(one)));
    }
    REQUIRE(wrong == 0);
    for (const int threads : {2, 3, 8}) REQUIRE(same_bits(sum_with(threads), want));
  };
  for (const std::int64_t n : {0, 1, 15, 16, 17, 100003}) {
    run(float{}, n);
    run(bf16{}, n);
    run(double{}, n);
  }
}

namespace {
/// An op of a user's whose backward returns what it is told to.
struct Wrong {
  static constexpr const char* kName = "wrong";
  std::vector<AnyTensor> grads;

  template <FloatElement T, Device D = Cpu>
  Tensor<T, D> forward(Saved&, const std::vector<AnyTensor>& in) const {
    return Tensor<T, D>(in[0]).clone();
  }
  template <FloatElement T, Device D = Cpu>
  std::vector<AnyTensor> backward(const Saved&, const Tensor<T, D>&) const {
    return grads;
  }
};
}  // namespace

TEST_CASE("backward: what an op returns is checked for count, shape and type", "[autograd][var]") {
  const V a = leaf({1, 2, 3, 4}), b = leaf({1});
  const auto run = [&](std::vector<AnyTensor> grads) {
    backward(sum(apply_list<float, Cpu>(Wrong{std::move(grads)}, {a, b})));
  };
  const Tensor<float> right({4}, 1.0f), other({1}, 1.0f);
  REQUIRE_THROWS_WITH(run({right}), "wrong backward: returned 1 gradients for 2 inputs");
  REQUIRE_THROWS_WITH(run({Tensor<float>({1000000}, 1.0f), other}),
                      "wrong backward: the gradient of input 0 is [1000000], the input is [4]");
  REQUIRE_THROWS_WITH(run({Tensor<double>({4}, 1.0), other}),
                      "wrong backward: the gradient of input 0 is f64, the input is f32");
  run({right, other});
  REQUIRE(grad_of(a) == Values{1, 1, 1, 1});
}

TEST_CASE("apply: an empty input is named", "[autograd][var]") {
  REQUIRE_THROWS_WITH(scale(Var<float>(), 2), "scale: input 0 is empty");
  REQUIRE_THROWS_WITH(add(leaf({1}), V()), "add: input 1 is empty");
}

TEST_CASE("backward: gradients that do not fit are refused", "[autograd][var]") {
  const V a = leaf({1, 2});
  a.node()->grad = Tensor<float>({3}, 0.f);
  REQUIRE_THROWS_WITH(backward(sum(a)), "backward: gradients of one value are f32[3] and f32[2]");
}

TEST_CASE("backward: a graph longer than the stack, built on two threads", "[autograd][var]") {
  const V a = leaf({1});
  V x = a;
  const int half = 100000;
  std::thread([&] {
    for (int i = 0; i < half; ++i) x = scale(x, i % 2 == 0 ? 2.0 : 0.5);
  }).join();
  for (int i = 0; i < half; ++i) x = add(scale(x, 0.5), scale(x, 0.5));
  backward(x);
  REQUIRE(grad_of(a) == Values{1});
  V dropped = a;
  for (int i = 0; i < half; ++i) dropped = scale(dropped, 1.0);
}
