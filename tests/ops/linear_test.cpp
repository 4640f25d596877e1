// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/linear.hpp>
#include <espalier/ops/reference/linear.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
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

/// Values that an activation of type T holds exactly.
template <FloatElement T = float>
Group make_group(std::int64_t n, std::uint64_t seed) {
  return {normal_of<T>(n * kIn, seed),         normal_of<T>(kOut * kIn, seed + 1),
          normal_of<T>(kRank * kIn, seed + 2), normal_of<T>(kOut * kRank, seed + 3),
          normal_of<T>(n * kOut, seed + 4),    n};
}

std::vector<double> joined(const std::vector<Group>& groups, std::vector<double> Group::*part) {
  std::vector<double> all;
  for (const Group& g : groups) all.insert(all.end(), (g.*part).begin(), (g.*part).end());
  return all;
}

/// `computed`: the type of the activations. Beside bf16, x Aᵀ and its gradient are bf16, so some
/// errors are of a rounded term, not of the rounded result.
void require_close(const AnyTensor& got, const std::vector<double>& want, const char* what,
                   DType computed) {
  const bool narrow = computed == DType::bf16 || got.dtype() == DType::bf16;
  const Mismatch m =
      narrow ? compare(to_vector(got), want, tol(DType::bf16, kIn), tol(DType::bf16, 1))
             : compare(to_vector(got), want, 20 * tol(computed, kIn), tol(computed, kIn));
  INFO(what << ": " << m);
  REQUIRE(m.count == 0);
}

// Values and all gradients of grouped LoRA layers against each group alone, by the complex step:
// activations of type T, weights of type W, LoRA pairs of type L.
template <FloatElement T, class W = T, class L = T>
void check_groups(const std::vector<std::int64_t>& sizes) {
  constexpr DType kType = dtype_of<T>::value;
  // All of them hold the values exactly.
  using Narrow = std::conditional_t<sizeof(T) == 2 || sizeof(W) == 2, bf16, T>;
  std::vector<Group> groups;
  std::vector<std::int64_t> offsets = {0};
  std::vector<AnyVar> weights;
  std::vector<LoraPair> pairs;
  for (const std::int64_t n : sizes) {
    groups.push_back(make_group<Narrow>(n, 10 * offsets.size()));
    const Group& g = groups.back();
    offsets.push_back(offsets.back() + n);
    weights.push_back(parameter(make_tensor<W>({kOut, kIn}, g.w)));
    pairs.push_back({parameter(make_tensor<L>({kRank, kIn}, g.a)),
                     parameter(make_tensor<L>({kOut, kRank}, g.b))});
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
    REQUIRE(weights[i].grad().dtype() == dtype_of<W>::value);
    REQUIRE(pairs[i].a.grad().dtype() == dtype_of<L>::value);
    REQUIRE(pairs[i].b.grad().dtype() == dtype_of<L>::value);
    require_close(
        weights[i].grad(),
        complex_step_grad([&](const auto& z) { return dot(g.dy, value(cx, z, ca, cb)); }, g.w),
        "dw", kType);
    require_close(
        pairs[i].a.grad(),
        complex_step_grad([&](const auto& z) { return dot(g.dy, value(cx, cw, z, cb)); }, g.a),
        "da", kType);
    require_close(
        pairs[i].b.grad(),
        complex_step_grad([&](const auto& z) { return dot(g.dy, value(cx, cw, ca, z)); }, g.b),
        "db", kType);
  }
  require_close(y.value(), want_y, "y", kType);
  require_close(x.grad(), want_dx, "dx", kType);
}

}  // namespace

TEST_CASE("linear: grouped LoRA layers match the reference and its complex-step gradients",
          "[ops][linear]") {
  const auto sizes = GENERATE(std::vector<std::int64_t>{5}, std::vector<std::int64_t>{3, 0, 1, 17},
                              std::vector<std::int64_t>{0, 0, 2}, std::vector<std::int64_t>{0});
  check_groups<double>(sizes);
  check_groups<float>(sizes);
  for (const cpu::Isa isa : cpu::kIsas) {
    if (isa > cpu::best_isa()) continue;
    const cpu::IsaOverride forced(isa);
    CAPTURE(name(isa));
    check_groups<bf16, bf16, float>(sizes);
    check_groups<bf16, float, float>(sizes);
    check_groups<bf16, f16, bf16>(sizes);
  }
  check_groups<float, bf16, float>(sizes);
}

TEST_CASE("linear: beside bf16 activations an f32 gradient keeps what bf16 would lose",
          "[ops][linear]") {
  const Group g = make_group<bf16>(9, 21);
  const Var<bf16> x(make_tensor<bf16>({9, kIn}, g.x));
  const auto w = parameter(make_tensor<float>({kOut, kIn}, g.w));
  backward(linear(x, w), make_tensor<bf16>({9, kOut}, g.dy));
  std::vector<double> dy_t(kOut * 9), x_t(kIn * 9);
  for (std::int64_t i = 0; i < 9; ++i) {
    for (std::int64_t o = 0; o < kOut; ++o) dy_t[o * 9 + i] = g.dy[i * kOut + o];
    for (std::int64_t c = 0; c < kIn; ++c) x_t[c * 9 + i] = g.x[i * kIn + c];
  }
  require_close(w.grad(), reference::linear(dy_t, x_t, kOut, 9, kIn), "dw", DType::f32);
}

TEST_CASE("linear: LoRA factors of f32 act beside bf16 activations as if rounded to bf16",
          "[ops][linear]") {
  const Group g = make_group(8, 31);  // values that bf16 does not hold
  const auto x = make_tensor<bf16>({8, kIn}, g.x);
  const auto w = make_tensor<bf16>({kOut, kIn}, g.w);
  const auto y_of = [&]<class L>(L) {
    const LoraPair pair{AnyVar(make_tensor<L>({kRank, kIn}, g.a)),
                        AnyVar(make_tensor<L>({kOut, kRank}, g.b))};
    return grouped_linear(Var<bf16>(x), {AnyVar(w)}, {0, 8}, {pair}, kScale).value();
  };
  REQUIRE(same_bits(y_of(float{}), y_of(bf16{})));
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
    require_close(y, reference::linear(g.x, to_vector(stored), 7, kIn, kOut), "y", DType::f32);
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
                "dx", DType::f64);
  require_close(
      dropped.grad(),
      complex_step_grad(
          [&](const auto& z) {
            return dot(g.dy, reference::lora_linear(z, to_complex(no_w), to_complex(g.a),
                                                    to_complex(g.b), kScale, 6, kIn, kOut, kRank));
          },
          zero),
      "dx'", DType::f64);
}

TEMPLATE_TEST_CASE("linear: the number of threads changes no bit", "[ops][linear]", float, bf16) {
  using T = TestType;
  const std::int64_t n = 90;
  const auto x = normal_of<T>(n * kIn, 1), dy = normal_of<T>(n * kOut, 2);
  require_same_bits_for_any_threads([&] {
    const auto vx = parameter(make_tensor<T>({n, kIn}, x));
    std::vector<AnyVar> weights;
    std::vector<LoraPair> pairs;
    for (std::uint64_t g = 0; g < 3; ++g) {
      const Group values = make_group(0, 10 * g);
      weights.push_back(parameter(make_tensor<T>({kOut, kIn}, values.w)));
      pairs.push_back({parameter(make_tensor<float>({kRank, kIn}, values.a)),
                       parameter(make_tensor<float>({kOut, kRank}, values.b))});
    }
    const auto y = grouped_linear(vx, weights, {0, 70, 70, n}, pairs, kScale);
    backward(y, make_tensor<T>({n, kOut}, dy));
    std::vector<AnyTensor> all = {y.value(), vx.grad()};
    for (std::size_t g = 0; g < 3; ++g) {
      for (const AnyVar& v : {weights[g], pairs[g].a, pairs[g].b}) all.push_back(v.grad());
    }
    return all;
  });
}

TEST_CASE("linear: a weight that does not fit names both shapes", "[ops][linear]") {
  const Var<float> x(Tensor<float>({2, 3}, 1.f));
  const AnyVar w(Tensor<float>({4, 5}, 1.f));
  REQUIRE_THROWS_WITH(linear(x, w), "linear: weight 0 is [4, 5], x is [2, 3]; expected [out, 3]");
  const AnyVar fits(Tensor<float>({4, 3}, 1.f));
  REQUIRE_THROWS_WITH(grouped_linear(x, {fits}, {0, 1}), "linear: offsets end at 1, x has 2 rows");
}
