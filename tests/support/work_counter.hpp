// SPDX-License-Identifier: Apache-2.0
// Counts work instead of timing it, so that a test of scaling gives the same figures everywhere.
// The layer tests/scaling is compiled with -fsanitize-coverage=trace-pc: each basic block that runs
// calls a counter. Code of libraries (PCRE2, simdjson, memcpy) is not counted; the bytes that are
// allocated are, and the most that were allocated at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "support/catch.hpp"

namespace espalier::test {

struct Work {
  std::uint64_t blocks = 0;    // basic blocks that ran
  std::size_t peak_bytes = 0;  // above what was allocated before
};

/// The counters now; blocks from an arbitrary origin.
Work work_so_far();
void restart_peak();

template <class Body>
Work work_of(Body&& body) {
  restart_peak();
  const Work before = work_so_far();
  std::forward<Body>(body)();
  const Work after = work_so_far();
  return {after.blocks - before.blocks, after.peak_bytes};
}

/// Checks that 4 times and 16 times the input take at most 5 and 20 times the work. `prepare(n)`
/// makes an input of size n and returns the call to measure.
template <class Prepare>
void require_linear(std::size_t size, Prepare&& prepare) {
  std::vector<std::uint64_t> blocks;
  for (const std::size_t times : {1, 4, 16}) {
    auto call = prepare(size * times);
    blocks.push_back(work_of(call).blocks);
  }
  CAPTURE(size, blocks);
  REQUIRE(blocks[0] > size / 16);  // otherwise nothing was counted
  CHECK(blocks[1] <= 5 * blocks[0]);
  CHECK(blocks[2] <= 20 * blocks[0]);
}

}  // namespace espalier::test
