// SPDX-License-Identifier: Apache-2.0
// The copy of tokens to the rows of their experts, bit for bit, and the sum back.
#include <espalier/kernels/dispatch.cuh>

#include "cases.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("dispatch: rows are exact copies, and only routed rows are written",
                   "[kernels][dispatch]", float, __nv_bfloat16, __half) {
  using T = TestType;
  for (const RoutingCase& c : routing_cases()) {
    for (const std::int64_t h : {1, 5, 24, 131, 1304}) {  // 24 and 1304: accesses of 16 bytes
      CAPTURE(c.name, h);
      const RowMaps maps = row_maps(c);
      const auto row_of_slot = buffer_of(maps.row_of_slot);
      const auto rows_used = static_cast<std::size_t>(maps.offsets.back() * h);
      Buffer<T> x(normal_as<T>(c.tokens * h, 1));
      if (x.size() > 0) {  // a NaN with a payload, and minus zero: copies keep their bits
        std::memset(static_cast<void*>(&x[0]), 0x7f, sizeof(T));
        x[x.size() - 1] = kernels::from_float<T>(-0.0f);
      }
      same_in_every_schedule([&] {
        Buffer<T> rows(c.slots() * h);
        REQUIRE(kernels::dispatch_forward(rows.data(), x.data(), row_of_slot.data(), c.tokens,
                                          c.top_k, h, nullptr) == cudaSuccess);
        bool same = true;
        for (std::size_t r = 0; r < maps.slot_of_row.size(); ++r) {
          const std::size_t token = static_cast<std::size_t>(maps.slot_of_row[r] / c.top_k);
          same = same && std::memcmp(&rows[r * h], &x[token * h], h * sizeof(T)) == 0;
        }
        REQUIRE(same);
        REQUIRE(rows.untouched(rows_used, rows.size()));
        REQUIRE(rows.guarded());
        return rows.bytes();
      });
    }
  }
}

TEMPLATE_TEST_CASE("dispatch: the gradient is the sum over a token's rows", "[kernels][dispatch]",
                   float, __nv_bfloat16, __half) {
  using T = TestType;
  for (const RoutingCase& c : routing_cases()) {
    for (const std::int64_t h : {3, 40, 1304}) {
      CAPTURE(c.name, h);
      const RowMaps maps = row_maps(c);
      const auto row_of_slot = buffer_of(maps.row_of_slot);
      const std::int64_t rows = maps.offsets.back();
      Buffer<T> drows(c.slots() * h);  // rows past the offsets stay NaN, and must not be read
      const auto values = normal_as<T>(rows * h, 2);
      for (std::size_t i = 0; i < values.size(); ++i) {
        drows[i] = kernels::from_float<T>(static_cast<float>(values[i]));
      }
      std::vector<double> want(static_cast<std::size_t>(c.tokens * h), 0.0);
      for (std::int64_t r = 0; r < rows; ++r) {
        const std::int64_t token = maps.slot_of_row[static_cast<std::size_t>(r)] / c.top_k;
        for (std::int64_t i = 0; i < h; ++i) want[token * h + i] += values[r * h + i];
      }
      same_in_every_schedule([&] {
        Buffer<T> dx(c.tokens * h);
        REQUIRE(kernels::dispatch_backward(dx.data(), drows.data(), row_of_slot.data(), c.tokens,
                                           c.top_k, h, nullptr) == cudaSuccess);
        const double t = kernel_tol<T>(c.top_k);
        require_close(dx, want, t, t);
        return dx.bytes();
      });
    }
  }
}

TEST_CASE("dispatch: rows that are not aligned to 16 bytes", "[kernels][dispatch]") {
  const RoutingCase c = routing_case("", 6, 4, 2);
  const auto row_of_slot = buffer_of(row_maps(c).row_of_slot);
  const Buffer<__nv_bfloat16> x(normal_as<__nv_bfloat16>(6 * 16, 3), /*offset=*/1);
  Buffer<__nv_bfloat16> rows(12 * 16, /*offset=*/3), aligned(12 * 16);
  const Buffer<__nv_bfloat16> same_x(x.values());
  kernels::dispatch_forward(rows.data(), x.data(), row_of_slot.data(), 6, 2, 16, nullptr);
  kernels::dispatch_forward(aligned.data(), same_x.data(), row_of_slot.data(), 6, 2, 16, nullptr);
  REQUIRE(rows.bytes() == aligned.bytes());
  REQUIRE(rows.guarded());
}

TEST_CASE("dispatch: more than 2^31 elements", "[kernels][dispatch]") {
  // Only the last block runs; its tokens and their rows lie beyond 2^31 elements, and what was
  // never touched has no memory behind it.
  using T = __nv_bfloat16;
  constexpr std::int64_t kTokens = (std::int64_t{1} << 20) + 3, kH = 2048;
  SparseMemory x(kTokens * kH * 2), rows(kTokens * kH * 2), maps(kTokens * 4);
  for (std::int64_t token = kTokens - 3; token < kTokens; ++token) {
    maps.as<std::int32_t>()[token] =
        static_cast<std::int32_t>(2 * kTokens - 4 - token);  // reversed
    for (std::int64_t i = 0; i < kH; ++i) {
      x.as<T>()[token * kH + i] = kernels::from_float<T>(static_cast<float>((token + i) % 251));
    }
  }
  const simulator::OnlyLastBlock only;
  REQUIRE(kernels::dispatch_forward(rows.as<T>(), x.as<T>(), maps.as<std::int32_t>(), kTokens, 1,
                                    kH, nullptr) == cudaSuccess);
  for (std::int64_t row = kTokens - 3; row < kTokens; ++row) {
    const std::int64_t token = 2 * kTokens - 4 - row;
    REQUIRE(std::memcmp(rows.as<T>() + row * kH, x.as<T>() + token * kH, kH * 2) == 0);
  }
}
