// SPDX-License-Identifier: Apache-2.0
// AdamW, clipping and schedules against torch (tests/golden/optimizer.json) and a double reference.
#include <algorithm>
#include <cmath>
#include <limits>

#include <espalier/io/json.hpp>
#include <espalier/optim/adamw.hpp>
#include <espalier/optim/clip.hpp>
#include <espalier/optim/schedule.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using optim::AdamW;
using optim::AdamWConfig;

namespace {

io::Json golden() {
  return io::read_json(std::string(ESPALIER_TESTS_DIR) + "/golden/optimizer.json");
}

std::vector<double> numbers(const io::Json& array) {
  std::vector<double> out;
  for (const io::Json& v : array.items()) out.push_back(v.as_double());
  return out;
}

NamedParameter make_parameter(const std::string& name, const std::vector<double>& values) {
  const Shape shape{static_cast<std::int64_t>(values.size())};
  return {name, parameter(test::make_tensor<float>(shape, values))};
}

void set_grad(const NamedParameter& p, const std::vector<double>& values) {
  p.var.node()->grad = test::make_tensor<float>(p.var.shape(), values);
}

/// Decoupled AdamW of the paper, one element at a time, in double.
struct DoubleAdamW {
  AdamWConfig c;
  double p, m = 0, v = 0;
  int t = 0;
  void step(double lr, double g) {
    ++t;
    m = c.beta1 * m + (1 - c.beta1) * g;
    v = c.beta2 * v + (1 - c.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(c.beta1, t)), v_hat = v / (1 - std::pow(c.beta2, t));
    p = p - lr * c.weight_decay * p - lr * m_hat / (std::sqrt(v_hat) + c.eps);
  }
};

}  // namespace

TEST_CASE("adamw: twelve clipped steps follow torch", "[optim][adamw]") {
  const io::Json g = golden();
  const io::Json& o = g.at("options");
  const AdamWConfig config = {o.at("betas").at(0).as_double(), o.at("betas").at(1).as_double(),
                              o.at("eps").as_double(), o.at("weight_decay").as_double()};
  std::vector<NamedParameter> parameters;
  for (const io::Json& p : g.at("start").items()) {
    parameters.push_back(make_parameter("p" + std::to_string(parameters.size()), numbers(p)));
  }
  AdamW optimizer(parameters, config);
  for (std::size_t s = 0; s < g.at("grads").size(); ++s) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      // A gradient that is missing must act as one that is zero.
      const std::vector<double> grad = numbers(g.at("grads").at(s).at(i));
      if (std::count(grad.begin(), grad.end(), 0.0) == static_cast<long>(grad.size())) {
        parameters[i].var.zero_grad();
      } else {
        set_grad(parameters[i], grad);
      }
    }
    const double norm = optim::global_grad_norm(parameters);
    CAPTURE(s);
    CHECK(std::abs(norm - g.at("norms").at(s).as_double()) <= 1e-6 * norm);
    optimizer.step(o.at("lr").as_double(), optim::clip_coefficient(norm, o.at("clip").as_double()));
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const auto want = numbers(g.at("after").at(s).at(i));
      const auto m = test::compare(test::to_vector(parameters[i].var.any()), want, 1e-6, 1e-6);
      INFO(m);
      REQUIRE(m.count == 0);
    }
  }
}

TEST_CASE("adamw: a hundred steps agree with a double reference", "[optim][adamw]") {
  const std::int64_t n = 20001;  // more than one block, not a multiple of it
  const AdamWConfig config = {0.9, 0.999, 1e-8, 0.1};
  const auto start = test::normal(n, 1);
  const NamedParameter p = make_parameter("p", start);
  AdamW optimizer({p}, config);
  std::vector<DoubleAdamW> reference;
  for (const double x : start) reference.push_back({config, x});
  for (int s = 0; s < 100; ++s) {
    const auto grad = test::normal(n, 100 + static_cast<std::uint64_t>(s), 0.01);
    set_grad(p, grad);
    const double lr = 1e-2 * (1 - s / 100.0);
    optimizer.step(lr);
    for (std::int64_t i = 0; i < n; ++i) reference[i].step(lr, grad[i]);
  }
  std::vector<double> want;
  for (const DoubleAdamW& r : reference) want.push_back(r.p);
  const auto m = test::compare(test::to_vector(p.var.any()), want, 2e-6, 1e-5);
  INFO(m);
  REQUIRE(m.count == 0);
}

TEST_CASE("adamw: without a gradient the moments fade and the weight decays", "[optim][adamw]") {
  const NamedParameter p = make_parameter("p", {1.0});
  AdamW optimizer({p}, {0.9, 0.999, 1e-8, 0.5});
  DoubleAdamW reference{{0.9, 0.999, 1e-8, 0.5}, 1.0};
  set_grad(p, {2.0});
  optimizer.step(0.1);
  reference.step(0.1, 2.0);
  p.var.zero_grad();
  for (int s = 0; s < 5; ++s) {
    optimizer.step(0.1);
    reference.step(0.1, 0.0);
  }
  const float got = Tensor<float>(p.var.any())[0];
  CHECK(std::abs(got - reference.p) < 1e-6);
  CHECK(got < 0.6f);  // neither the momentum nor the decay stopped with the gradient
}

TEST_CASE("adamw: a restored optimizer goes on with the same bits", "[optim][adamw]") {
  const auto start = test::normal(50, 3);
  const NamedParameter a = make_parameter("p", start);
  AdamW first({a}, {});
  for (int s = 0; s < 3; ++s) {
    set_grad(a, test::normal(50, 10 + static_cast<std::uint64_t>(s)));
    first.step(1e-2);
  }
  const NamedParameter b = make_parameter("p", test::to_vector(a.var.any()));
  AdamW second({b}, {});
  std::unordered_map<std::string, AnyTensor> state;
  for (const auto& [name, value] : first.state()) state[name] = value.clone();
  second.restore(3, state);
  for (const NamedParameter* p : {&a, &b}) set_grad(*p, test::normal(50, 20));
  first.step(1e-2);
  second.step(1e-2);
  CHECK(test::same_bits(a.var.any(), b.var.any()));

  state.erase("p.exp_avg_sq");
  CHECK_THROWS_WITH(second.restore(3, state), Catch::Contains("expected 2"));
  state["other.exp_avg_sq"] = first.state()[1].second;
  CHECK_THROWS_WITH(second.restore(3, state), Catch::Contains("lacks p.exp_avg_sq"));
}

TEST_CASE("adamw: refuses parameters that are not f32, by name", "[optim][adamw]") {
  const NamedParameter p = {"model.norm.weight", parameter(Tensor<double>(Shape{2}, 1.0))};
  CHECK_THROWS_WITH(AdamW({p}, {}), Catch::Contains("model.norm.weight is f64"));
}

TEST_CASE("clip: the norm is exact over many elements and any number of threads", "[optim][clip]") {
  const std::int64_t n = 100003;
  const auto values = test::normal(n, 5);
  const NamedParameter p = make_parameter("p", values), q = make_parameter("q", {1.0, 2.0});
  set_grad(p, values);  // q has no gradient
  double want = 0;
  for (const double v : values) want += v * v;
  want = std::sqrt(want);
  const int before = num_threads();
  std::vector<double> got;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    got.push_back(optim::global_grad_norm({p, q}));
  }
  set_num_threads(before);
  CHECK(std::abs(got[0] - want) <= 1e-13 * want);
  CHECK(got[0] == got[1]);
  CHECK(got[0] == got[2]);
}

TEST_CASE("clip: the coefficient is that of torch, and 0 switches it off", "[optim][clip]") {
  CHECK(optim::clip_coefficient(0.5, 1.0) == 1.0);
  CHECK(optim::clip_coefficient(1.0, 1.0) == 1.0 / (1.0 + 1e-6));
  CHECK(optim::clip_coefficient(4.0, 1.0) == 1.0 / (4.0 + 1e-6));
  CHECK(optim::clip_coefficient(4.0, 0.0) == 1.0);
}

TEST_CASE("schedule: rates equal those of transformers", "[optim][schedule]") {
  const io::Json g = golden();
  for (const io::Json& s : g.at("schedules").items()) {
    const optim::Schedule schedule = {optim::schedule_named(s.at("name").as_string()),
                                      s.at("lr").as_double(), s.at("warmup").as_int(),
                                      s.at("total").as_int()};
    std::vector<double> got;
    for (std::int64_t step = 0; step < schedule.total; ++step) got.push_back(schedule.at(step));
    CAPTURE(s.at("name").as_string(), schedule.warmup, schedule.total);
    const auto m = test::compare(got, numbers(s.at("rates")), 1e-20, 1e-14);
    INFO(m);
    CHECK(m.count == 0);
    CHECK((schedule.warmup == 0 || got[0] == 0.0));
  }
  CHECK_THROWS_WITH(optim::schedule_named("cosin"),
                    Catch::Contains("'cosin', expected constant, linear or cosine"));
}

TEST_CASE("adamw: a frozen parameter neither moves nor decays", "[optim][adamw]") {
  const std::vector<NamedParameter> both = {{"a", parameter(Tensor<float>({3}, 1.0f))},
                                            {"b", parameter(Tensor<float>({3}, 1.0f))}};
  optim::AdamW optimizer(both, {.weight_decay = 0.1});
  both[1].var.set_grad_mode(GradMode::ignore);
  optimizer.step(0.5);
  REQUIRE(test::to_vector(both[0].var.any()) == std::vector<double>(3, 1.0f - 0.05f));
  REQUIRE(test::to_vector(both[1].var.any()) == std::vector<double>(3, 1.0));
}
