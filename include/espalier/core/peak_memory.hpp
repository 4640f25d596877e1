// SPDX-License-Identifier: Apache-2.0
// How much memory a process has taken.
#pragma once

#include <sys/resource.h>

#include <cstdint>

namespace espalier {

/// The most memory that this process has had resident so far.
[[nodiscard]] inline std::int64_t peak_memory_bytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

}  // namespace espalier
