// SPDX-License-Identifier: Apache-2.0
// Keys and values of a cache in pages, as attention on the CPU reads them.
#pragma once

#include <cstdint>

namespace espalier::cpu {

/// Tokens of a page: a multiple of the keys of a block (attention_blocks.hpp), so that no block
/// crosses a border and the reduction order is that of contiguous keys.
inline constexpr std::int64_t kPageKeys = 96;

/// Rows [kPageKeys, G, P]; those behind the last key are undefined.
template <class T>
struct KeyPage {
  const T *k, *v;
};

}  // namespace espalier::cpu
