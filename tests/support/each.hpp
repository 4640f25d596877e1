// SPDX-License-Identifier: Apache-2.0
// A test body under every instruction set, and under several numbers of threads.
#pragma once

#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/isa.hpp>

#include "support/catch.hpp"
#include "support/make_tensor.hpp"

namespace espalier::test {

/// Runs `body` under each instruction set that the processor has.
template <class Body>
void for_each_isa(Body body) {
  for (const cpu::Isa isa : {cpu::Isa::plain, cpu::Isa::avx2, cpu::Isa::avx512}) {
    if (isa > cpu::best_isa()) continue;
    const cpu::IsaOverride forced(isa);
    CAPTURE(name(isa));
    body();
  }
}

/// Runs `body` with 1, 2, 3 and 8 threads.
template <class Body>
void for_each_thread_count(Body body) {
  const int before = num_threads();
  for (const int threads : {1, 2, 3, 8}) {
    CAPTURE(threads);
    set_num_threads(threads);
    body();
  }
  set_num_threads(before);
}

/// The tensors that `run` returns have the same bits for each number of threads.
template <class Run>
void require_same_bits_for_any_threads(Run run) {
  std::vector<AnyTensor> one;
  for_each_thread_count([&] {
    const std::vector<AnyTensor> now = run();
    if (one.empty()) one = now;
    REQUIRE(!now.empty());
    for (std::size_t i = 0; i < now.size(); ++i) REQUIRE(same_bits(one[i], now[i]));
  });
}

}  // namespace espalier::test
