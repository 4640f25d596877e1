// SPDX-License-Identifier: Apache-2.0
// Many consecutive blocks of Philox4x32-10 at once: the same words as Philox::block of
// core/random.hpp, block by block, one block in each 64-bit lane.
#pragma once

#include <cstdint>

#include <espalier/core/random.hpp>
#include <espalier/ops/cpu/simd.hpp>

namespace espalier::cpu {

namespace detail {

/// Blocks [first, first + W / 2) to `words`, four words a block.
template <int W>
ESP_SIMD_INLINE void philox_blocks(std::uint64_t seed, std::uint64_t stream, std::uint64_t first,
                                   std::uint32_t* words) {
  constexpr int kLanes = W / 2;
  using U = simd::detail::Raw<std::uint64_t, kLanes>;
  constexpr std::uint64_t kLow = 0xffffffffu;
  U counter{};
  for (int l = 0; l < kLanes; ++l) counter[l] = first + static_cast<std::uint64_t>(l);
  U c0 = counter & kLow, c1 = counter >> 32, c2 = U{} + (stream & kLow), c3 = U{} + (stream >> 32);
  std::uint64_t k0 = seed & kLow, k1 = seed >> 32;
  for (int round = 0; round < 10; ++round) {
    const U p0 = c0 * 0xD2511F53u, p1 = c2 * 0xCD9E8D57u;
    c0 = (p1 >> 32) ^ c1 ^ k0;
    c1 = p1 & kLow;
    c2 = (p0 >> 32) ^ c3 ^ k1;
    c3 = p0 & kLow;
    k0 = (k0 + 0x9E3779B9u) & kLow;
    k1 = (k1 + 0xBB67AE85u) & kLow;
  }
  const U first_half = c0 | (c1 << 32), second_half = c2 | (c3 << 32);
  for (int l = 0; l < kLanes; ++l) {
    const std::uint64_t pair[] = {first_half[l], second_half[l]};
    __builtin_memcpy(words + 4 * l, pair, sizeof pair);
  }
}

}  // namespace detail

/// The words of blocks [first, first + blocks) of Philox(seed, stream), 4 * blocks of them.
template <int W>
ESP_SIMD_INLINE void philox_words(std::uint64_t seed, std::uint64_t stream, std::uint64_t first,
                                  std::int64_t blocks, std::uint32_t* words) {
  constexpr std::int64_t kLanes = W / 2;
  std::int64_t b = 0;
  for (; b + kLanes <= blocks; b += kLanes) {
    detail::philox_blocks<W>(seed, stream, first + static_cast<std::uint64_t>(b), words + 4 * b);
  }
  for (; b < blocks; ++b) {
    const auto block = Philox(seed, stream).block(first + static_cast<std::uint64_t>(b));
    for (int i = 0; i < 4; ++i) words[4 * b + i] = block[i];
  }
}

}  // namespace espalier::cpu
