// SPDX-License-Identifier: Apache-2.0
// The router against the reference by the rule of each family, experts, weights and gradient;
// against a stable sort; and the way from logits to permuted rows: three launches, no size on the
// host.
#include <espalier/cuda/router_rule.hpp>
#include <espalier/kernels/dispatch.cuh>
#include <espalier/kernels/router_top_k.cuh>
#include <espalier/ops/reference/moe.hpp>

#include <cmath>
#include <limits>
#include <numeric>

#include "cases.hpp"
#include "support/router_rules.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Shape3 {
  std::int64_t n;
  int e, k;
};
const RouterRule kOlmoe{.renormalize = false};

// Each group size, full and not; k = 1 and k = E; several chunks; more experts than lanes.
const Shape3 kShapes[] = {{0, 8, 2},  {1, 8, 2},    {67, 8, 2},   {9, 5, 5},   {3, 1, 1},
                          {33, 9, 4}, {40, 16, 16}, {35, 30, 1},  {5, 32, 32}, {20, 60, 6},
                          {9, 65, 7}, {34, 128, 8}, {6, 200, 16}, {2, 512, 16}};

/// Best first, ties to the lower index, NaN last.
std::vector<int> best(const double* z, int e, int k) {
  std::vector<int> order(static_cast<std::size_t>(e));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return z[a] > z[b] || (std::isnan(z[b]) && !std::isnan(z[a]));
  });
  order.resize(static_cast<std::size_t>(k));
  return order;
}
std::vector<int> best_of_rows(const std::vector<double>& z, const Shape3& s) {
  std::vector<int> chosen;
  for (std::int64_t i = 0; i < s.n; ++i) {
    const auto row = best(z.data() + i * s.e, s.e, s.k);
    chosen.insert(chosen.end(), row.begin(), row.end());
  }
  return chosen;
}

/// The shapes that a test in T runs: the large ones, which take most of the time, in f32 only.
template <class T>
std::vector<Shape3> shapes() {
  std::vector<Shape3> some;
  for (const Shape3& s : kShapes) {
    if (std::is_same_v<T, float> || s.n * s.e * s.k < 3000) some.push_back(s);
  }
  return some;
}

template <class T>
struct Routed {
  Buffer<float> weights;
  Buffer<std::int32_t> chosen;
  Buffer<std::int32_t> counts;

  Routed(const Buffer<T>& logits, const Shape3& s, RouterRule rule, const float* bias = nullptr)
      : weights(s.n * s.k),
        chosen(s.n * s.k),
        counts(static_cast<std::int64_t>(kernels::route_counts_workspace_bytes(s.n, s.e) / 4)) {
    rule.top_k = s.k;
    REQUIRE(kernels::router_top_k_forward(weights.data(), chosen.data(), counts.data(),
                                          logits.data(), bias, s.n, s.e, cuda::kernel_rule(rule),
                                          nullptr) == cudaSuccess);
    REQUIRE((weights.guarded() && chosen.guarded() && counts.guarded()));
  }
  std::string bytes() const { return weights.bytes() + chosen.bytes() + counts.bytes(); }
};

}  // namespace

TEMPLATE_TEST_CASE("router_top_k: experts, weights and counts", "[kernels][router_top_k]", float,
                   __nv_bfloat16, __half) {
  using T = TestType;
  for (RouterRule rule : {RouterRule{}, kOlmoe}) {
    for (const Shape3& s : shapes<T>()) {
      rule.top_k = s.k;
      CAPTURE(s.n, s.e, s.k, rule.renormalize);
      auto z = normal_as<T>(s.n * s.e, 21, 2.0);
      for (std::size_t i = 0; i + 3 < z.size(); i += 11) z[i + 3] = z[i];  // ties
      for (std::size_t i = 5; i + 1 < z.size(); i += 17) z[i] = 0.0, z[i + 1] = -0.0;
      const Buffer<T> logits(z);
      const auto chosen = best_of_rows(z, s);
      const auto weights = reference::router_weights(z, chosen, s.n, s.e, rule);
      same_in_every_schedule([&] {
        const Routed<T> r(logits, s, rule);
        REQUIRE(std::equal(chosen.begin(), chosen.end(), r.chosen.data()));
        require_close(r.weights, weights, tol(DType::f32, s.e), 0x1p-126);
        // The counts are those that count_routes makes of the same experts.
        Buffer<std::int32_t> counts(static_cast<std::int64_t>(r.counts.size()));
        kernels::count_routes(counts.data(), r.chosen.data(), s.n, s.e, s.k, nullptr);
        REQUIRE(counts.bytes() == r.counts.bytes());
        return r.bytes();
      });
    }
  }
}

TEST_CASE("router_top_k: NaN and Inf", "[kernels][router_top_k]") {
  const Shape3 s{7, 4, 2};
  const std::vector<double> z = {
      1,     kNan,  2,     0,      // NaN ranks last, and spoils the weights
      -kInf, -kInf, -kInf, 3,      // -inf is chosen when nothing else is left
      kNan,  -kInf, kNan,  -kInf,  // -inf before NaN
      kNan,  kNan,  kNan,  kNan,   //
      kInf,  1,     kInf,  0,      // inf - inf
      5,     -kInf, 5,     5,      // a tie of three
      -0.0,  0.0,   -1,    -1};
  const Buffer<float> logits(z);
  for (const RouterRule& rule : {RouterRule{}, kOlmoe}) {
    same_in_every_schedule([&] {
      const Routed<float> r(logits, s, rule);
      const std::vector<std::int32_t> want = {2, 0, 3, 0, 1, 3, 0, 1, 0, 2, 0, 2, 0, 1};
      REQUIRE(std::equal(want.begin(), want.end(), r.chosen.data()));
      for (const int token : {0, 2, 3, 4}) {
        REQUIRE(std::isnan(r.weights[2 * token]));
        REQUIRE(std::isnan(r.weights[2 * token + 1]));
      }
      REQUIRE((r.weights[2] == 1.0f && r.weights[3] == 0.0f));
      REQUIRE(r.weights[10] == r.weights[11]);
      REQUIRE(r.weights[12] == r.weights[13]);
      return r.bytes();
    });
  }
}

// Each size of a group of lanes; groups of one expert; DeepSeek-V2's and -V3's own.
struct GroupedShape {
  Shape3 shape;
  std::int64_t groups, kept;
};
const GroupedShape kGroupedShapes[] = {
    {{0, 8, 2}, 2, 1},   {{9, 8, 2}, 4, 2},      {{5, 6, 3}, 6, 4},   {{33, 12, 4}, 3, 2},
    {{7, 32, 6}, 8, 3},  {{9, 60, 6}, 6, 3},     {{5, 128, 8}, 1, 1}, {{5, 160, 6}, 8, 3},
    {{9, 256, 8}, 8, 4}, {{2, 512, 16}, 256, 16}};

TEMPLATE_TEST_CASE("router_top_k: experts, weights and gradient by each rule",
                   "[kernels][router_top_k]", float, __nv_bfloat16, __half) {
  using T = TestType;
  for (const GroupedShape& grouped : kGroupedShapes) {
    const Shape3& s = grouped.shape;
    if (!std::is_same_v<T, float> && s.n * s.e > 1000) continue;
    auto z = normal_as<T>(s.n * s.e, 22, 1.5);
    for (std::size_t i = 3; i < z.size(); i += 13) z[i] = -kInf;
    const auto b = normal_as<float>(s.e, 24, 0.3), dw = normal_as<float>(s.n * s.k, 23);
    const Buffer<T> logits(z);
    const Buffer<float> dweights(dw), bias(b);
    for (const RouterCase& c : router_cases(s.e, s.k, grouped.groups, grouped.kept)) {
      CAPTURE(s.n, s.e, s.k, grouped.groups, c.name);
      const auto chosen =
          reference::router_choice(z, c.bias ? b : std::vector<double>{}, s.n, s.e, c.rule);
      const auto weights = reference::router_weights(z, chosen, s.n, s.e, c.rule);
      const auto want = reference::router_weights_backward(z, chosen, dw, s.n, s.e, c.rule);
      const kernels::RouterRule rule = cuda::kernel_rule(c.rule);
      same_in_every_schedule([&] {
        const Routed<T> r(logits, s, c.rule, c.bias ? bias.data() : nullptr);
        REQUIRE(std::equal(chosen.begin(), chosen.end(), r.chosen.data()));
        require_close(r.weights, weights, tol(DType::f32, s.e), 0x1p-126);
        Buffer<T> d(s.n * s.e);
        REQUIRE(kernels::router_top_k_backward(
                    d.data(), dweights.data(), r.weights.data(), r.chosen.data(),
                    kernels::is_softmax_of_kept(rule) ? nullptr : logits.data(), s.n, s.e, rule,
                    nullptr) == cudaSuccess);
        require_close(d, want, kernel_tol<T>(s.e), 2 * tol(DType::f32, s.e) * c.rule.scale);
        return r.bytes() + d.bytes();
      });
    }
  }
}

TEST_CASE("router_top_k: leaving out masked experts changes no bit on the device",
          "[kernels][router_top_k]") {
  const int e = GENERATE(10, 40, 130);
  const Shape3 all{20, e, 3};
  auto z = normal_as<float>(all.n * e, 8, 2.0);
  const auto b = normal_as<float>(e, 6, 0.3), dw = normal_as<float>(all.n * 3, 5);
  std::vector<double> few, few_b;
  std::vector<std::size_t> kept;
  for (int c = 0; c < e; ++c) {
    if (c % 3 == 1) continue;
    kept.push_back(static_cast<std::size_t>(c));
    few_b.push_back(b[static_cast<std::size_t>(c)]);
  }
  for (std::size_t i = 0; i < z.size(); ++i) {
    if (i % static_cast<std::size_t>(e) % 3 == 1) {
      z[i] = -kInf;
    } else {
      few.push_back(z[i]);
    }
  }
  const Shape3 left{all.n, static_cast<int>(kept.size()), all.k};
  const Buffer<float> dweights(dw);
  for (const RouterCase& c : router_cases(e, all.k)) {
    CAPTURE(e, c.name);
    const auto run = [&](const std::vector<double>& values, const std::vector<double>& biases,
                         const Shape3& s) {
      const Buffer<float> logits(values), bias(biases);
      Routed<float> r(logits, s, c.rule, c.bias ? bias.data() : nullptr);
      Buffer<float> d(s.n * s.e);
      REQUIRE(kernels::router_top_k_backward(d.data(), dweights.data(), r.weights.data(),
                                             r.chosen.data(), logits.data(), s.n, s.e,
                                             cuda::kernel_rule(c.rule), nullptr) == cudaSuccess);
      return std::pair{std::move(r), std::move(d)};
    };
    const auto [masked, dmasked] = run(z, b, all);
    const auto [pruned, dpruned] = run(few, few_b, left);
    REQUIRE(masked.weights.bytes() == pruned.weights.bytes());
    for (std::size_t i = 0; i < masked.chosen.size(); ++i) {
      REQUIRE(masked.chosen[i] ==
              static_cast<int>(kept[static_cast<std::size_t>(pruned.chosen[i])]));
    }
    for (std::size_t i = 0; i < dpruned.size(); ++i) {
      const std::size_t at = i / kept.size() * static_cast<std::size_t>(e) + kept[i % kept.size()];
      REQUIRE(std::memcmp(&dmasked[at], &dpruned[i], sizeof(float)) == 0);
    }
  }
}

TEST_CASE("router_top_k: NaN by each rule, on the device", "[kernels][router_top_k]") {
  const Shape3 s{3, 8, 2};
  auto z = normal_as<float>(s.n * s.e, 1);
  z[8 + 5] = kNan;
  const Buffer<float> logits(z), bias(std::vector<double>(8, 0.5));
  for (const RouterCase& c : router_cases(s.e, s.k, 2, 1)) {
    CAPTURE(c.name);
    const Routed<float> r(logits, s, c.rule, c.bias ? bias.data() : nullptr);
    for (std::size_t i = 0; i < 6; ++i) REQUIRE(std::isnan(r.weights[i]) == (i / 2 == 1));
  }
}

TEST_CASE("router_top_k: sizes beyond its limits are refused", "[kernels][router_top_k]") {
  auto route = [](int e, int k, int groups = 1, int top_groups = 1) {
    const kernels::RouterRule rule{.top_k = k, .groups = groups, .top_groups = top_groups};
    return kernels::router_top_k_forward<float>(nullptr, nullptr, nullptr, nullptr, nullptr, 1, e,
                                                rule, nullptr);
  };
  REQUIRE(route(8, 2, 3) == cudaErrorInvalidValue);
  REQUIRE(route(8, 3, 4) == cudaErrorInvalidValue);
  REQUIRE(route(8, 2, 4, 5) == cudaErrorInvalidValue);
  REQUIRE(route(513, 2) == cudaErrorInvalidValue);
  REQUIRE(route(64, 33) == cudaErrorInvalidValue);
  REQUIRE(route(4, 5) == cudaErrorInvalidValue);
  REQUIRE(route(4, 0) == cudaErrorInvalidValue);
}

TEST_CASE("router_top_k: logits to permuted rows in three launches", "[kernels][router_top_k]") {
  const Shape3 s{100, 8, 2};
  constexpr std::int64_t kH = 24;
  const Buffer<float> logits(normal_as<float>(s.n * s.e, 31)), x(normal_as<float>(s.n * kH, 32));
  same_in_every_schedule([&] {
#ifndef ESP_ON_GPU
    simulator::g_log.kernels.clear();
#endif
    const Routed<float> r(logits, s, RouterRule{});
    Buffer<std::int32_t> offsets(s.e + 1), row_of_slot(s.n * s.k), slot_of_row(s.n * s.k);
    Buffer<float> rows(s.n * s.k * kH);
    kernels::make_routing(offsets.data(), row_of_slot.data(), slot_of_row.data(), r.chosen.data(),
                          r.counts.data(), s.n, s.e, s.k, nullptr);
    kernels::dispatch_forward(rows.data(), x.data(), row_of_slot.data(), s.n, s.k, kH, nullptr);
#ifndef ESP_ON_GPU
    REQUIRE(simulator::g_log.kernels.size() == 3);
#endif
    REQUIRE(offsets[8] == s.n * s.k);
    for (std::int64_t row = 0; row < s.n * s.k; ++row) {
      const std::int64_t token = slot_of_row[row] / s.k;
      REQUIRE(std::memcmp(&rows[row * kH], &x[token * kH], kH * 4) == 0);
    }
    return r.bytes() + offsets.bytes() + rows.bytes();
  });
}
