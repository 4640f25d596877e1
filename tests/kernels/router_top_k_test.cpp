// SPDX-License-Identifier: Apache-2.0
// The router against a stable sort and the reference weights; its gradient against complex step;
// and the way from logits to permuted rows: three launches, no size on the host.
#include <espalier/kernels/dispatch.cuh>
#include <espalier/kernels/router_top_k.cuh>
#include <espalier/ops/reference/moe.hpp>

#include <cmath>
#include <limits>
#include <numeric>

#include "cases.hpp"
#include "support/gradcheck.hpp"

using namespace espalier;
using namespace espalier::test;
using kernels::SoftmaxOrder;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Shape3 {
  std::int64_t n;
  int e, k;
};
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

  Routed(const Buffer<T>& logits, const Shape3& s, SoftmaxOrder order)
      : weights(s.n * s.k),
        chosen(s.n * s.k),
        counts(static_cast<std::int64_t>(kernels::route_counts_workspace_bytes(s.n, s.e) / 4)) {
    REQUIRE(kernels::router_top_k_forward(weights.data(), chosen.data(), counts.data(),
                                          logits.data(), s.n, s.e, s.k, order,
                                          nullptr) == cudaSuccess);
    REQUIRE((weights.guarded() && chosen.guarded() && counts.guarded()));
  }
  std::string bytes() const { return weights.bytes() + chosen.bytes() + counts.bytes(); }
};

}  // namespace

TEMPLATE_TEST_CASE("router_top_k: experts, weights and counts", "[kernels][router_top_k]", float,
                   __nv_bfloat16, __half) {
  using T = TestType;
  for (const SoftmaxOrder order : {SoftmaxOrder::top_k_softmax, SoftmaxOrder::softmax_top_k}) {
    for (const Shape3& s : shapes<T>()) {
      CAPTURE(s.n, s.e, s.k, static_cast<int>(order));
      auto z = normal_as<T>(s.n * s.e, 21, 2.0);
      for (std::size_t i = 0; i + 3 < z.size(); i += 11) z[i + 3] = z[i];  // ties
      for (std::size_t i = 5; i + 1 < z.size(); i += 17) z[i] = 0.0, z[i + 1] = -0.0;
      const Buffer<T> logits(z);
      const auto chosen = best_of_rows(z, s);
      const auto weights =
          reference::router_weights(z, chosen, s.n, s.e, s.k, order == SoftmaxOrder::top_k_softmax);
      same_in_every_schedule([&] {
        const Routed<T> r(logits, s, order);
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
  for (const SoftmaxOrder order : {SoftmaxOrder::top_k_softmax, SoftmaxOrder::softmax_top_k}) {
    same_in_every_schedule([&] {
      const Routed<float> r(logits, s, order);
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

TEMPLATE_TEST_CASE("router_top_k: the gradient is that of the reference", "[kernels][router_top_k]",
                   float, __nv_bfloat16, __half) {
  using T = TestType;
  for (const SoftmaxOrder order : {SoftmaxOrder::top_k_softmax, SoftmaxOrder::softmax_top_k}) {
    for (const Shape3& s : shapes<T>()) {
      if (s.n * s.e > 1200) continue;  // complex step is quadratic
      CAPTURE(s.n, s.e, s.k, static_cast<int>(order));
      const bool renormalize = order == SoftmaxOrder::top_k_softmax;
      const auto z = normal_as<T>(s.n * s.e, 22, 1.5);
      const auto dw = normal_as<float>(s.n * s.k, 23);
      const auto chosen = best_of_rows(z, s);
      const auto want = complex_step_grad(
          [&](const auto& x) {
            return dot(reference::router_weights(x, chosen, s.n, s.e, s.k, renormalize), dw);
          },
          z);
      const Buffer<T> logits(z);
      const Buffer<float> dweights(dw);
      const Routed<T> r(logits, s, order);
      same_in_every_schedule([&] {
        Buffer<T> d(s.n * s.e);
        REQUIRE(kernels::router_top_k_backward(d.data(), dweights.data(), r.weights.data(),
                                               r.chosen.data(),
                                               renormalize ? nullptr : logits.data(), s.n, s.e, s.k,
                                               order, nullptr) == cudaSuccess);
        require_close(d, want, kernel_tol<T>(s.e), 2 * tol(DType::f32, s.e));
        return d.bytes();
      });
    }
  }
}

TEST_CASE("router_top_k: sizes beyond its limits are refused", "[kernels][router_top_k]") {
  auto route = [](int e, int k) {
    return kernels::router_top_k_forward<float>(nullptr, nullptr, nullptr, nullptr, 1, e, k,
                                                SoftmaxOrder::top_k_softmax, nullptr);
  };
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
    const Routed<float> r(logits, s, SoftmaxOrder::top_k_softmax);
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
