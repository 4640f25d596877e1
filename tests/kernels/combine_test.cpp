// SPDX-License-Identifier: Apache-2.0
// The weighted sum over a token's rows, and the gradients of rows and weights, against plain loops.
#include <espalier/kernels/combine.cuh>

#include "cases.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

// A routing with values: rows that no slot names stay NaN, so reading one would show.
template <class T>
struct Case {
  RoutingCase routing;
  std::int64_t h;
  RowMaps maps = row_maps(routing);
  std::int64_t rows_used = maps.offsets.back();
  std::vector<double> row_values = normal_as<T>(rows_used * h, 11);
  std::vector<double> weight_values = normal_as<float>(routing.slots(), 12);
  Buffer<std::int32_t> row_of_slot = buffer_of(maps.row_of_slot);
  Buffer<float> weights{weight_values};
  Buffer<T> rows{routing.slots() * h};

  Case(const RoutingCase& r, std::int64_t width) : routing(r), h(width) {
    const Buffer<T> used(row_values);
    std::copy(used.data(), used.data() + used.size(), rows.data());
  }
};

}  // namespace

TEMPLATE_TEST_CASE("combine: the sum over slots", "[kernels][combine]", float, __nv_bfloat16,
                   __half) {
  using T = TestType;
  for (const RoutingCase& r : routing_cases()) {
    for (const std::int64_t h : {1, 5, 131, 1304}) {
      CAPTURE(r.name, h);
      const Case<T> c(r, h);
      std::vector<double> want(static_cast<std::size_t>(r.tokens * h), 0.0);
      for (std::int64_t row = 0; row < c.rows_used; ++row) {
        const std::int64_t slot = c.maps.slot_of_row[static_cast<std::size_t>(row)];
        for (std::int64_t i = 0; i < h; ++i) {
          want[slot / r.top_k * h + i] += c.weight_values[slot] * c.row_values[row * h + i];
        }
      }
      same_in_every_schedule([&] {
        Buffer<T> y(r.tokens * h);
        REQUIRE(kernels::combine_forward(y.data(), c.rows.data(), c.weights.data(),
                                         c.row_of_slot.data(), r.tokens, r.top_k, h,
                                         nullptr) == cudaSuccess);
        const double t = kernel_tol<T>(r.top_k);
        require_close(y, want, t, 4 * tol(DType::f32, r.top_k));
        return y.bytes();
      });
    }
  }
}

TEMPLATE_TEST_CASE("combine: gradients of rows and weights", "[kernels][combine]", float,
                   __nv_bfloat16, __half) {
  using T = TestType;
  for (const RoutingCase& r : routing_cases()) {
    for (const std::int64_t h : {3, 40, 1304}) {
      CAPTURE(r.name, h);
      const Case<T> c(r, h);
      const auto dy_values = normal_as<T>(r.tokens * h, 13);
      const Buffer<T> dy(dy_values);
      std::vector<double> want_rows(static_cast<std::size_t>(c.rows_used * h));
      std::vector<double> want_weights(static_cast<std::size_t>(r.slots()), 0.0);
      for (std::int64_t row = 0; row < c.rows_used; ++row) {
        const std::int64_t slot = c.maps.slot_of_row[static_cast<std::size_t>(row)];
        for (std::int64_t i = 0; i < h; ++i) {
          const double up = dy_values[slot / r.top_k * h + i];
          want_rows[row * h + i] = c.weight_values[slot] * up;
          want_weights[slot] += up * c.row_values[row * h + i];
        }
      }
      same_in_every_schedule([&] {
        Buffer<T> drows(r.slots() * h);
        Buffer<float> dweights(r.slots());
        REQUIRE(kernels::combine_backward(drows.data(), dweights.data(), dy.data(), c.rows.data(),
                                          c.weights.data(), c.row_of_slot.data(), r.tokens, r.top_k,
                                          h, nullptr) == cudaSuccess);
        auto got = drows.values();
        got.resize(want_rows.size());
        // Products below f16's normal numbers round to steps of 2^-24.
        const double step = std::is_same_v<T, __half> ? 0x1p-24 : 0;
        const Mismatch m = compare(got, want_rows, step / 2, kernel_tol<T>(1));
        INFO(m);
        REQUIRE(m.count == 0);
        REQUIRE(drows.untouched(want_rows.size(), drows.size()));
        REQUIRE(drows.guarded());
        const double t = tol(DType::f32, h);
        require_close(dweights, want_weights, t, t);
        return drows.bytes() + dweights.bytes();
      });
    }
  }
}

TEST_CASE("combine: more than 2^31 elements", "[kernels][combine]") {
  using T = __nv_bfloat16;
  constexpr std::int64_t kTokens = (std::int64_t{1} << 20) + 1, kH = 2048;
  SparseMemory y(kTokens * kH * 2), rows(kTokens * kH * 2), weights(kTokens * 4), maps(kTokens * 4);
  const std::int64_t last = kTokens - 1;
  maps.as<std::int32_t>()[last] = static_cast<std::int32_t>(last);
  weights.as<float>()[last] = 2.0f;
  for (std::int64_t i = 0; i < kH; ++i) {
    rows.as<T>()[last * kH + i] = kernels::from_float<T>(static_cast<float>(i % 100));
  }
  const simulator::OnlyLastBlock only;
  REQUIRE(kernels::combine_forward(y.as<T>(), rows.as<T>(), weights.as<float>(),
                                   maps.as<std::int32_t>(), kTokens, 1, kH,
                                   nullptr) == cudaSuccess);
  for (std::int64_t i = 0; i < kH; ++i) {
    REQUIRE(kernels::to_float(y.as<T>()[last * kH + i]) == static_cast<float>(2 * (i % 100)));
  }
}
