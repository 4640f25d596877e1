// SPDX-License-Identifier: Apache-2.0
// The attention layer against its parts written out in double, and its cache.
#include <algorithm>

#include <espalier/nn/attention.hpp>
#include <espalier/nn/init.hpp>
#include <espalier/ops/reference/attention.hpp>
#include <espalier/ops/reference/linear.hpp>
#include <espalier/ops/reference/rope.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

constexpr std::int64_t kHidden = 10, kHeads = 4, kKvHeads = 2, kDim = 6;
constexpr double kTheta = 100;

/// [out, in] of each projection.
Shape shape_of(const std::string& name) {
  if (name == "o") return {kHidden, kHeads * kDim};
  return {(name == "q" ? kHeads : kKvHeads) * kDim, kHidden};
}
template <class T>
Tensor<T> weight(const std::string& name) {
  return normal_weight<T>(name, shape_of(name), 0.4f, 1);
}
template <class T>
Attention<T> layer(std::int64_t window, bool trained = false) {
  const auto linear = [&](const std::string& name) -> Linear<T> {
    return {name, trained ? AnyVar(parameter(weight<T>(name))) : AnyVar(weight<T>(name))};
  };
  return {AttentionConfig{.heads = kHeads,
                          .kv_heads = kKvHeads,
                          .head_dim = kDim,
                          .rope = {.theta = kTheta},
                          .window = window},
          linear("q"), linear("k"), linear("v"), linear("o")};
}

template <class S>
std::vector<S> expected(const std::vector<S>& x, const std::vector<std::int32_t>& positions,
                        const std::vector<std::int64_t>& segments, std::int64_t window) {
  const std::int64_t n = segments.back();
  const auto project = [&](const std::vector<S>& rows, const std::string& name) {
    const auto w = to_vector(weight<double>(name));
    return reference::linear(rows, std::vector<S>(w.begin(), w.end()), n, shape_of(name)[1],
                             shape_of(name)[0]);
  };
  const auto q = reference::rope(project(x, "q"), positions, kHeads, kDim, kTheta);
  const auto k = reference::rope(project(x, "k"), positions, kKvHeads, kDim, kTheta);
  reference::AttentionSizes sizes;
  sizes.segments = segments;
  sizes.heads = kHeads;
  sizes.kv_heads = kKvHeads;
  sizes.head_dim = kDim;
  sizes.window = window;
  return project(reference::attention(q, k, project(x, "v"), sizes), "o");
}

void require_close(const AnyTensor& got, const std::vector<double>& want) {
  const double bound = tol(DType::f64, kHidden * kHeads * kDim);
  const Mismatch m = compare(to_vector(got), want, 20 * bound, bound);
  INFO(m);
  REQUIRE(m.count == 0);
}

}  // namespace

TEST_CASE("Attention: values and the gradient of x match the formula, packed and windowed",
          "[nn][attention]") {
  const std::int64_t window = GENERATE(0, 3);
  const PackedTokens tokens(std::vector<std::int32_t>(9), {0, 5, 5, 6, 9});
  const auto positions = positions_of(tokens);
  const std::vector<std::int32_t> at(positions.data(), positions.data() + positions.numel());
  REQUIRE(at == std::vector<std::int32_t>{0, 1, 2, 3, 4, 0, 0, 1, 2});
  const auto x = normal(9 * kHidden, 5), dy = normal(9 * kHidden, 6);
  const auto vx = parameter(make_tensor<double>({9, kHidden}, x));
  const auto y = layer<double>(window)(vx, positions, tokens.segments);
  require_close(y.value(), expected(x, at, tokens.segments, window));
  backward(y, make_tensor<double>({9, kHidden}, dy));
  require_close(
      vx.grad(),
      complex_step_grad(
          [&](const auto& z) { return dot(dy, expected(z, at, tokens.segments, window)); }, x));
}

TEST_CASE("Attention: continuing caches gives the bits of one pass", "[nn][attention]") {
  using T = float;
  const std::int64_t window = GENERATE(0, 4);
  const auto attention = layer<T>(window);
  const PackedTokens whole(std::vector<std::int32_t>(11), {0, 7, 11});
  const Var<T> x(normal_weight<T>("x", {11, kHidden}, 1.0f, 1));
  const NoGrad no_grad;
  const auto want = attention(x, positions_of(whole), whole.segments).value();
  KvCache<T> a(1, kKvHeads * kDim, 2), b(1, kKvHeads * kDim, 2);
  KvCache<T>* caches[] = {&a, &b};
  const auto next = [&](std::int64_t from_a, std::int64_t to_a, std::int64_t from_b,
                        std::int64_t to_b) {
    const std::int64_t rows_a = to_a - from_a, rows_b = to_b - from_b, rows = rows_a + rows_b;
    const PackedTokens part(std::vector<std::int32_t>(rows), {0, rows_a, rows});
    const Tensor<T> rows_of(Shape{rows, kHidden});
    std::copy_n(x.value().rows(from_a, to_a).data(), rows_a * kHidden, rows_of.data());
    std::copy_n(x.value().rows(7 + from_b, 7 + to_b).data(), rows_b * kHidden,
                rows_of.data() + rows_a * kHidden);
    const auto y = attention(Var<T>(rows_of), positions_of(part, {from_a, from_b}), part.segments,
                             caches, /*layer=*/0)
                       .value();
    a.advance(rows_a);
    b.advance(rows_b);
    REQUIRE(same_bits(y.rows(0, rows_a), want.rows(from_a, to_a)));
    REQUIRE(same_bits(y.rows(rows_a, rows), want.rows(7 + from_b, 7 + to_b)));
  };
  next(0, 3, 0, 1);
  next(3, 4, 1, 1);  // nothing new for the second
  next(4, 7, 1, 4);
}

TEST_CASE("Attention: every weight is collected by name, adapters where they are asked for",
          "[nn][attention]") {
  std::vector<NamedParameter> all;
  layer<float>(0, /*trained=*/true).collect(all);
  REQUIRE(all.size() == 4);
  REQUIRE(all[0].name == "q.weight");
  REQUIRE(all[3].name == "o.weight");
  auto frozen = layer<float>(0);
  frozen.add_lora({.r = 2, .targets = {"v", "o", "w1"}}, 1);
  all.clear();
  frozen.collect(all);
  REQUIRE(all.size() == 4);
  REQUIRE(all[0].name == "v.lora_A.weight");
  REQUIRE(all[3].name == "o.lora_B.weight");
}

TEST_CASE("Attention: the number of threads changes no bit", "[nn][attention]") {
  const auto attention = layer<float>(0, /*trained=*/true);
  std::vector<NamedParameter> parameters;
  attention.collect(parameters);
  const PackedTokens tokens(std::vector<std::int32_t>(70), {0, 41, 70});
  require_same_bits_for_any_threads([&] {
    for (const NamedParameter& p : parameters) p.var.zero_grad();
    const auto x = parameter(normal_weight<float>("x", {70, kHidden}, 1.0f, 1));
    const auto y = attention(x, positions_of(tokens), tokens.segments);
    backward(y, normal_weight<float>("dy", {70, kHidden}, 1.0f, 1));
    std::vector<AnyTensor> all = {y.value(), x.grad()};
    for (const NamedParameter& p : parameters) all.push_back(p.var.grad());
    return all;
  });
}
