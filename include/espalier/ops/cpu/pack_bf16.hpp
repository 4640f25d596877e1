// SPDX-License-Identifier: Apache-2.0
// Operands of bf16 products in the order in which the instructions read them. Both see k in steps
// of 32, as 16 pairs of neighbours; a line is a row of the left operand or a column of the right:
//   left tile [16 lines][16 pairs]      right tile [16 pairs][16 lines]
// of 1 KiB each, padded with zeros. A left operand that is stored by lines is not packed. Needs
// AVX-512.
#pragma once

#include <cstdint>

#include <espalier/ops/cpu/pack.hpp>

namespace espalier::cpu::detail {

inline constexpr int kTileLines = 16;
inline constexpr int kStepDepth = 32;  // values of k
inline constexpr std::int64_t kTileBytes = 1024;

/// One operand of a product of bf16: its lines, each of k values.
struct Lines {
  const bf16* data;
  std::int64_t stride;
  bool k_first;  // memory is [k][line], not [line][k]

  const bf16* at(std::int64_t line, std::int64_t k) const {
    return data + (k_first ? k * stride + line : line * stride + k);
  }
};

#if defined(__x86_64__)

// Vectors of pairs are typed as vectors of floats: they are only moved. A function with vectors in
// inline assembly needs the target attribute itself, although it is inlined: clang requires it, and
// with OpenMP drops the instruction silently.
using Pairs = simd::Vec<float, 16>;

/// Lane i of `first` and of `second` side by side.
ESP_TARGET_AVX512 ESP_SIMD_INLINE Pairs interleave(const bf16* first, const bf16* second) {
  struct Half {
    bf16 lanes[16];
  };
  using Wide = simd::detail::Raw<std::uint32_t, 16>;
  Wide low, high;  // GCC makes four instructions of the conversion
  asm("vpmovzxwd %1, %0" : "=v"(low) : "m"(*reinterpret_cast<const Half*>(first)));
  asm("vpmovzxwd %1, %0" : "=v"(high) : "m"(*reinterpret_cast<const Half*>(second)));
  return Pairs(reinterpret_cast<Pairs::Raw>(low | high << 16));
}

/// One tile: 16 lines and 32 values of k, of which `lines` and `depth` are in the matrix.
template <bool KFirst, bool Right>
ESP_TARGET_AVX512 ESP_SIMD_INLINE void pack_tile(const bf16* from, std::int64_t stride, int lines,
                                                 int depth, std::byte* to) {
  alignas(64) bf16 edge[kTileLines * kStepDepth];
  if (lines < kTileLines || depth < kStepDepth) {
    for (bf16& x : edge) x = bf16{};
    const int height = KFirst ? depth : lines, width = KFirst ? lines : depth;
    constexpr int kWidth = KFirst ? kTileLines : kStepDepth;
    for (int i = 0; i < height; ++i) {
      for (int j = 0; j < width; ++j) edge[i * kWidth + j] = from[i * stride + j];
    }
    from = edge;
    stride = kWidth;
  }
  Pairs::Raw rows[16];
  ESP_UNROLL
  for (int i = 0; i < 16; ++i) {
    if constexpr (KFirst) {
      rows[i] = interleave(from + 2 * i * stride, from + (2 * i + 1) * stride).v;
    } else {
      __builtin_memcpy(&rows[i], from + i * stride, sizeof rows[i]);
    }
  }
  if constexpr (KFirst != Right) transpose<float, 16>(rows);
  ESP_UNROLL
  for (int i = 0; i < 16; ++i) __builtin_memcpy(to + i * 64, &rows[i], 64);
}

/// Lines [line, line + lines), values of k [k, k + depth) to [steps][tiles].
template <bool KFirst, bool Right>
ESP_TARGET_AVX512 void pack_panel(const Lines& from, std::int64_t line, std::int64_t lines,
                                  std::int64_t k, std::int64_t depth, std::byte* to) {
  for (std::int64_t step = 0; step < depth; step += kStepDepth) {
    for (std::int64_t i = 0; i < lines; i += kTileLines, to += kTileBytes) {
      pack_tile<KFirst, Right>(from.at(line + i, k + step), from.stride,
                               static_cast<int>(std::min<std::int64_t>(kTileLines, lines - i)),
                               static_cast<int>(std::min<std::int64_t>(kStepDepth, depth - step)),
                               to);
    }
  }
}

inline void pack_left(const Lines& from, std::int64_t line, std::int64_t lines, std::int64_t k,
                      std::int64_t depth, std::byte* to) {
  (from.k_first ? pack_panel<true, false> : pack_panel<false, false>)(from, line, lines, k, depth,
                                                                      to);
}
inline void pack_right(const Lines& from, std::int64_t line, std::int64_t lines, std::int64_t k,
                       std::int64_t depth, std::byte* to) {
  (from.k_first ? pack_panel<true, true> : pack_panel<false, true>)(from, line, lines, k, depth,
                                                                    to);
}

#endif

}  // namespace espalier::cpu::detail
