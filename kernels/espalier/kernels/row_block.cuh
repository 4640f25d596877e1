// SPDX-License-Identifier: Apache-2.0
// The size of a block that works on one row.
#pragma once

#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

inline constexpr int kNormThreads = 256;

/// Threads of a block for rows of `vectors` vectors: whole warps, no more than there is work for.
inline int norm_threads(std::int64_t vectors) {
  const std::int64_t warps = ceil_div<std::int64_t>(vectors, kWarp);
  return static_cast<int>(warps * kWarp < kNormThreads ? warps * kWarp : kNormThreads);
}

}  // namespace espalier::kernels
