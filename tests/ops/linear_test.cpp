// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/linear.hpp>
#include <espalier/ops/reference/linear.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

struct Group {
  std::vector<double> x, w, a, b, dy;
  std::int64_t n;
};

constexpr std::int64_t kIn = 19, kOut = 11, kRank = 3;
constexpr double kScale = 1.75;

Group make_group(std::int64_t n, std::uint64_t seed) {
  return {normal(n * kIn, seed),         normal(kOut * kIn, seed + 1),
          normal(kRank * kIn, seed + 2), normal(kOut * kRank, seed + 3),
          normal(n * kOut, seed + 4),    n};
}

std::vector<double> joined(const std::vector<Group>& groups, std::vector<double> Group::*part) {
  std::vector<double> all;
  for (const Group& g : groups) all.insert(all.end(), (g.*part).begin(), (g.*part).end());
  return all;
}

void require_close(const AnyTensor& got, const std::vector<double>& want, const char* what) {
  const Mismatch m =
      compare(to_vector(got), want, 20 * tol(got.dtype(), kIn), tol(got.dtype(), kIn));
  INFO(what << ": " << m);
  REQUIRE(m.count == 0);
}

// Values and all gradients of grouped LoRA layers against each group alone, by the complex step.
template <class T>
void check_groups(const std::vector<std::int64_t>& sizes) {
  std::vector<Group> groups;
  std::vector<std::int64_t> offsets = {0};
  std::vector<AnyVar> weights;
  std::vector<LoraPair> pairs;
  for (const std::int64_t n : sizes) {
    groups.push_back(make_group(n, 10 * offsets.size()));
    const Group& g = groups.back();
    offsets.push_back(offsets.back() + n);
    weights.push_back(parameter(make_tensor<T>({kOut, kIn}, g.w)));
    pairs.push_back({parameter(make_tensor<T>({kRank, kIn}, g.a)),
                     parameter(make_tensor<T>({kOut, kRank}, g.b))});
  }
  const auto x = parameter(make_tensor<T>({offsets.back(), kIn}, joined(groups, &Group::x)));
  const auto y = grouped_linear(x, weights, offsets, pairs, kScale);
  backward(y, make_tensor<T>(y.shape(), joined(groups, &Group::dy)));

  std::vector<double> want_y, want_dx;
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const Group& g = groups[i];
    auto value = [&](const auto& gx, const auto& gw, const auto& ga, const auto& gb) {
      return reference::lora_linear(gx, gw, ga, gb, kScale, g.n, kIn, kOut, kRank);
    };
    const auto cx = to_complex(g.x), cw = to_complex(g.w), ca = to_complex(g.a),
               cb = to_complex(g.b);
    const auto y_i = value(g.x, g.w, g.a, g.b);
    want_y.insert(want_y.end(), y_i.begin(), y_i.end());
    const auto dx =
        complex_step_grad([&](const auto& z) { return dot(g.dy, value(z, cw, ca, cb)); }, g.x);
    want_dx.insert(want_dx.end(), dx.begin(), dx.end());
    require_close(
        weights[i].grad(),
        complex_step_grad([&](const auto& z) { return dot(g.dy, value(cx, z, ca, cb)); }, g.w),
        "dw");
    require_close(
        pairs[i].a.grad(),
        complex_step_grad([&](const auto& z) { return dot(g.dy, value(cx, cw, z, cb)); }, g.a),
        "da");
    require_close(
        pairs[i].b.grad(),
        complex_step_grad([&](const auto& z) { return dot(g.dy, value(cx, cw, ca, z)); }, g.b),
        "db");
  }
  require_close(y.value(), want_y, "y");
  require_close(x.grad(), want_dx, "dx");
}

}  // namespace

TEST_CASE("linear: grouped LoRA layers match the reference and its complex-step gradients",
          "[ops][linear]") {
  const auto sizes = GENERATE(std::vector<std::int64_t>{5}, std::vector<std::int64_t>{3, 0, 1, 17},
                              std::vector<std::int64_t>{0, 0, 2}, std::vector<std::int64_t>{0});
  check_groups<double>(sizes);
  check_groups<float>(sizes);
}

TEST_CASE("linear: an expert without rows has gradient zero, not none", "[ops][linear]") {
  const Group g = make_group(4, 3);
  std::vector<AnyVar> weights = {AnyVar(make_tensor<float>({kOut, kIn}, g.w)),
                                 AnyVar(make_tensor<float>({kOut, kIn}, g.w))};
  std::vector<LoraPair> pairs;
  for (int i = 0; i < 2; ++i) {
    pairs.push_back({parameter(make_tensor<float>({kRank, kIn}, g.a)),
                     parameter(make_tensor<float>({kOut, kRank}, g.b))});
  }
  const Var<float> x(make_tensor<float>({4, kIn}, g.x));
  backward(grouped_linear(x, weights, {0, 4, 4}, pairs, kScale),
           make_tensor<float>({4, kOut}, g.dy));
  REQUIRE(to_vector(pairs[1].a.grad()) == std::vector<double>(kRank * kIn, 0.0));
  REQUIRE(to_vector(pairs[1].b.grad()) == std::vector<double>(kOut * kRank, 0.0));
}

TEST_CASE("linear: weights stored in bf16 and f16 act as their widened values", "[ops][linear]") {
  const Group g = make_group(7, 5);
  const Var<float> x(make_tensor<float>({7, kIn}, g.x));
  auto check = [&](const AnyTensor& stored) {
    const auto y = linear(x, AnyVar(stored)).value();
    require_close(y, reference::linear(g.x, to_vector(stored), 7, kIn, kOut), "y");
  };
  check(make_tensor<bf16>({kOut, kIn}, g.w));
  check(make_tensor<f16>({kOut, kIn}, g.w));
}

TEST_CASE("linear: the LoRA branch can have an input of its own", "[ops][linear]") {
  const Group g = make_group(6, 8);
  const auto x = parameter(make_tensor<double>({6, kIn}, g.x));
  const auto dropped = parameter(make_tensor<double>({6, kIn}, normal(6 * kIn, 77)));
  const auto w = make_tensor<double>({kOut, kIn}, g.w);
  const LoraPair pair{AnyVar(make_tensor<double>({kRank, kIn}, g.a)),
                      AnyVar(make_tensor<double>({kOut, kRank}, g.b))};
  const auto dy = make_tensor<double>({6, kOut}, g.dy);
  backward(grouped_linear(x, {AnyVar(w)}, {0, 6}, {pair}, kScale, dropped), dy);
  const std::vector<double> zero(6 * kIn, 0.0), no_w(kOut * kIn, 0.0);
  require_close(x.grad(),
                complex_step_grad(
                    [&](const auto& z) {
                      return dot(g.dy, reference::linear(z, to_complex(g.w), 6, kIn, kOut));
                    },
                    zero),
                "dx");
  require_close(
      dropped.grad(),
      complex_step_grad(
          [&](const auto& z) {
            return dot(g.dy, reference::lora_linear(z, to_complex(no_w), to_complex(g.a),
                                                    to_complex(g.b), kScale, 6, kIn, kOut, kRank));
          },
          zero),
      "dx'");
}

TEST_CASE("linear: a weight that does not fit names both shapes", "[ops][linear]") {
  const Var<float> x(Tensor<float>({2, 3}, 1.f));
  const AnyVar w(Tensor<float>({4, 5}, 1.f));
  REQUIRE_THROWS_WITH(linear(x, w), "linear: weight 0 is [4, 5], x is [2, 3]; expected [out, 3]");
  const AnyVar fits(Tensor<float>({4, 3}, 1.f));
  REQUIRE_THROWS_WITH(grouped_linear(x, {fits}, {0, 1}), "linear: offsets end at 1, x has 2 rows");
}
