// SPDX-License-Identifier: Apache-2.0
// Parallel loops by OpenMP. A loop body owns the outputs of its index range and does not depend on
// the number of threads. With the fixed block sizes of reductions, that makes results reproducible.
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace espalier {

[[nodiscard]] inline int num_threads() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

/// Index of the calling thread within its parallel loop, from 0.
[[nodiscard]] inline int thread_number() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

/// Sets the number of threads of later loops of the calling thread. `n` <= 0: the default, all
/// cores.
inline void set_num_threads([[maybe_unused]] int n) {
#ifdef _OPENMP
  if (n > 0) omp_set_num_threads(n);
#endif
}

/// Calls `body(begin, end)` over disjoint ranges that cover [0, n), each of at most `grain`
/// indices, handed out dynamically. An exception thrown by a body reaches the caller.
template <class Body>
void parallel_for(std::int64_t n, std::int64_t grain, Body&& body) {
  grain = std::max<std::int64_t>(grain, 1);
  const std::int64_t chunks = (n + grain - 1) / grain;
#ifdef _OPENMP
  if (chunks > 1 && num_threads() > 1 && !omp_in_parallel()) {
    std::exception_ptr failure;
    std::atomic_flag failed = ATOMIC_FLAG_INIT;
#pragma omp parallel for schedule(dynamic, 1)
    for (std::int64_t c = 0; c < chunks; ++c) {
      try {
        body(c * grain, std::min(n, (c + 1) * grain));
      } catch (...) {
        if (!failed.test_and_set()) failure = std::current_exception();
      }
    }
    if (failure) std::rethrow_exception(failure);
    return;
  }
#endif
  for (std::int64_t c = 0; c < chunks; ++c) body(c * grain, std::min(n, (c + 1) * grain));
}

/// The grain of loops over rows of `width` elements that are read, computed and written once: large
/// enough that scheduling costs little.
[[nodiscard]] inline std::int64_t rows_per_task(std::int64_t width) {
  constexpr std::int64_t kElements = 1 << 14;
  return std::max<std::int64_t>(1, kElements / std::max<std::int64_t>(width, 1));
}

}  // namespace espalier
