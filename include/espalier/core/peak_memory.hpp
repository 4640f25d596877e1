// SPDX-License-Identifier: Apache-2.0
// The memory use of the process.
#pragma once

#include <sys/resource.h>

#include <cstdint>

namespace espalier {

/// Peak resident set size of this process so far.
[[nodiscard]] inline std::int64_t peak_memory_bytes() {
  rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return std::int64_t{usage.ru_maxrss} * 1024;
}

}  // namespace espalier
