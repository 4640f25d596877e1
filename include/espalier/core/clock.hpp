// SPDX-License-Identifier: Apache-2.0
// The time that has passed. Not <chrono>, whose calendar alone took 2 percent of what a compiler
// needs for espalier.hpp.
#pragma once

#include <time.h>

namespace espalier {

/// Seconds on a clock that never goes back, from an arbitrary origin.
[[nodiscard]] inline double monotonic_seconds() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

}  // namespace espalier
