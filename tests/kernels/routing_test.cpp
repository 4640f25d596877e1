// SPDX-License-Identifier: Apache-2.0
// Counts, offsets and row maps against the plainest loop, and against the CPU's make_routing.
#include <espalier/kernels/routing.cuh>
#include <espalier/ops/router_top_k.hpp>

#include "cases.hpp"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("routing: row maps are ordered by expert, token, slot", "[kernels][routing]") {
  for (const RoutingCase& c : routing_cases()) {
    CAPTURE(c.name);
    const RowMaps want = row_maps(c);
    const auto rows = static_cast<std::size_t>(want.offsets.back());
    const auto chosen = buffer_of(c.chosen);
    same_in_every_schedule([&] {
      const auto counts_bytes = kernels::route_counts_workspace_bytes(c.tokens, c.experts);
      Buffer<std::int32_t> counts(static_cast<std::int64_t>(counts_bytes / 4));
      Buffer<std::int32_t> offsets(c.experts + 1), row_of_slot(c.slots()), slot_of_row(c.slots());
      REQUIRE(kernels::count_routes(counts.data(), chosen.data(), c.tokens, c.experts, c.top_k,
                                    nullptr) == cudaSuccess);
      REQUIRE(kernels::make_routing(offsets.data(), row_of_slot.data(), slot_of_row.data(),
                                    chosen.data(), counts.data(), c.tokens, c.experts, c.top_k,
                                    nullptr) == cudaSuccess);
      REQUIRE(offsets.bytes() == buffer_of(want.offsets).bytes());
      REQUIRE(row_of_slot.bytes() == buffer_of(want.row_of_slot).bytes());
      for (std::size_t r = 0; r < rows; ++r) REQUIRE(slot_of_row[r] == want.slot_of_row[r]);
      REQUIRE(slot_of_row.untouched(rows, slot_of_row.size()));
      REQUIRE((counts.guarded() && offsets.guarded() && row_of_slot.guarded()));
      REQUIRE(slot_of_row.guarded());
      return counts.bytes() + offsets.bytes() + row_of_slot.bytes() + slot_of_row.bytes();
    });
  }
}

TEST_CASE("routing: many chunks agree with the CPU", "[kernels][routing]") {
  const RoutingCase c = routing_case("", 1500, 8, 2);
  REQUIRE(kernels::route_chunks(c.tokens) == 47);
  REQUIRE(kernels::route_chunks(9001) == 251);  // from here on chunks grow: never more than 256
  REQUIRE(kernels::route_chunks(10000000) == 256);
  Tensor<std::int32_t> on_cpu(Shape{c.tokens, c.top_k});
  std::copy(c.chosen.begin(), c.chosen.end(), on_cpu.data());
  const Routing want = make_routing(on_cpu, c.experts);
  const auto chosen = buffer_of(c.chosen);
  Buffer<std::int32_t> counts(47 * 8), offsets(9), rows(c.slots()), slots(c.slots());
  kernels::count_routes(counts.data(), chosen.data(), c.tokens, 8, 2, nullptr);
  kernels::make_routing(offsets.data(), rows.data(), slots.data(), chosen.data(), counts.data(),
                        c.tokens, 8, 2, nullptr);
  for (int e = 0; e <= 8; ++e) REQUIRE(offsets[e] == want.offsets[e]);
  bool same = true;
  for (std::int64_t i = 0; i < c.slots(); ++i) {
    same = same && rows[i] == want.row_of_slot[i] && slots[i] == want.slot_of_row[i];
  }
  REQUIRE(same);
}

TEST_CASE("routing: sizes that have no row numbers are refused", "[kernels][routing]") {
  std::int32_t* none = nullptr;
  auto count = [&](std::int64_t n, int e, int k) {
    return kernels::count_routes(none, none, n, e, k, nullptr);
  };
  REQUIRE(count(1, 513, 1) == cudaErrorInvalidValue);
  REQUIRE(count(1, 0, 1) == cudaErrorInvalidValue);
  REQUIRE(count(1, 8, 0) == cudaErrorInvalidValue);
  REQUIRE(count(std::int64_t{1} << 30, 8, 2) == cudaErrorInvalidValue);
}
