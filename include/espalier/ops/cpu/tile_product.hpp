// SPDX-License-Identifier: Apache-2.0
// The innermost part of a product of bf16 matrices: 32 x 32 sums in f32, by AMX tiles or by
// vdpbf16ps. Both work on pairs of neighbours in k, in order, each product exact and each addition
// rounded once; both read subnormal operands as 0 and flush subnormal sums to 0.
//   vdpbf16ps: c = (c + a1 b1) + a0 b0 for each pair
//   tdpbf16ps: over 16 pairs, even = sum of a0 b0 and odd = sum of a1 b1, then c += even + odd
// Swapping left and right does not affect the bits. (Intel 64 and IA-32 Architectures Software
// Developer's Manual, volume 2.)
#pragma once

#include <cstddef>
#include <cstdint>

#include <espalier/ops/cpu/pack_bf16.hpp>

namespace espalier::cpu::detail {

inline constexpr int kBlockLines = 2 * kTileLines;  // of sums, each way

/// sums[rows][16 right_tiles] (+)= left[rows, k] right[k, columns]
struct TileProduct {
  const std::byte* left;
  std::int64_t left_stride;    // bytes from line to line
  std::int64_t left_step;      // bytes from step to step
  const std::byte* left_last;  // [rows][64 bytes] for the last step, or null: as the others
  const std::byte* right;      // [steps][right_tiles] tiles
  std::int64_t steps;
  int rows;         // 1 to 32
  int right_tiles;  // 1 or 2
  float* sums;
  std::int64_t sums_stride;  // from row to row
  bool resume;               // add to what `sums` holds
};

#if defined(__x86_64__)

/// Shape of the eight tile registers: 0-3 sums, 4 and 5 left, 6 and 7 right.
class TileShapes {
 public:
  TileShapes() = default;
  TileShapes(const TileShapes&) = delete;
  TileShapes& operator=(const TileShapes&) = delete;
  /// Releases the tile registers, so that a context switch need not save them.
  ~TileShapes() {
    if (rows_ != 0) asm volatile("tilerelease" ::: "memory");
  }
  /// Configures the tiles for `rows` lines on the left; a new configuration clears the registers.
  void use(int rows) {
    if (rows == rows_) return;
    rows_ = rows;
    struct alignas(64) {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {};
      std::uint8_t rows[16] = {};
    } shapes;
    const int upper = rows < kTileLines ? rows : kTileLines;
    const int lower = rows > kTileLines ? rows - kTileLines : kTileLines;
    for (int tile = 0; tile < 8; ++tile) {
      shapes.row_bytes[tile] = 64;
      const bool in_lower = tile == 2 || tile == 3 || tile == 5;
      shapes.rows[tile] = static_cast<std::uint8_t>(tile >= 6  ? kTileLines
                                                    : in_lower ? lower
                                                               : upper);
    }
    asm volatile("ldtilecfg %0" ::"m"(shapes) : "memory");
  }

 private:
  int rows_ = 0;
};

// The registers are named in the text: compilers know nothing of them without flags for AMX.
#define ESP_TILE_LOAD(tile, address, stride) \
  asm volatile("tileloadd (%0,%1,1), %%tmm" #tile ::"r"(address), "r"(stride) : "memory")
#define ESP_TILE_STORE(tile, address, stride) \
  asm volatile("tilestored %%tmm" #tile ", (%0,%1,1)" ::"r"(address), "r"(stride) : "memory")
#define ESP_TILE_ZERO(tile) asm volatile("tilezero %%tmm" #tile ::)
#define ESP_TILE_MULTIPLY(sum, left, right) \
  asm volatile("tdpbf16ps %%tmm" #right ", %%tmm" #left ", %%tmm" #sum ::)

template <int LeftTiles, int RightTiles>
ESP_SIMD_INLINE void tile_step(const std::byte* left, std::int64_t stride, const std::byte* right) {
  constexpr std::int64_t kRow = 64;
  ESP_TILE_LOAD(4, left, stride);
  ESP_TILE_LOAD(6, right, kRow);
  ESP_TILE_MULTIPLY(0, 4, 6);
  if constexpr (LeftTiles == 2) {
    ESP_TILE_LOAD(5, left + kTileLines * stride, stride);
    ESP_TILE_MULTIPLY(2, 5, 6);
  }
  if constexpr (RightTiles == 2) {
    ESP_TILE_LOAD(7, right + kTileBytes, kRow);
    ESP_TILE_MULTIPLY(1, 4, 7);
    if constexpr (LeftTiles == 2) ESP_TILE_MULTIPLY(3, 5, 7);
  }
}

/// The shapes must fit p.rows.
template <int LeftTiles, int RightTiles>
void multiply_tiles(const TileProduct& p) {
  const std::int64_t stride = p.sums_stride * static_cast<std::int64_t>(sizeof(float));
  float* const sums = p.sums;
  float* const lower = sums + kTileLines * p.sums_stride;
  if (p.resume) {
    ESP_TILE_LOAD(0, sums, stride);
    if constexpr (RightTiles == 2) ESP_TILE_LOAD(1, sums + kTileLines, stride);
    if constexpr (LeftTiles == 2) ESP_TILE_LOAD(2, lower, stride);
    if constexpr (LeftTiles == 2 && RightTiles == 2) ESP_TILE_LOAD(3, lower + kTileLines, stride);
  } else {
    ESP_TILE_ZERO(0);
    if constexpr (RightTiles == 2) ESP_TILE_ZERO(1);
    if constexpr (LeftTiles == 2) ESP_TILE_ZERO(2);
    if constexpr (LeftTiles == 2 && RightTiles == 2) ESP_TILE_ZERO(3);
  }
  const std::byte *left = p.left, *right = p.right;
  for (std::int64_t step = p.left_last ? 1 : 0; step < p.steps; ++step) {
    tile_step<LeftTiles, RightTiles>(left, p.left_stride, right);
    left += p.left_step;
    right += RightTiles * kTileBytes;
  }
  if (p.left_last) tile_step<LeftTiles, RightTiles>(p.left_last, 64, right);
  ESP_TILE_STORE(0, sums, stride);
  if constexpr (RightTiles == 2) ESP_TILE_STORE(1, sums + kTileLines, stride);
  if constexpr (LeftTiles == 2) ESP_TILE_STORE(2, lower, stride);
  if constexpr (LeftTiles == 2 && RightTiles == 2) ESP_TILE_STORE(3, lower + kTileLines, stride);
}

#undef ESP_TILE_LOAD
#undef ESP_TILE_STORE
#undef ESP_TILE_ZERO
#undef ESP_TILE_MULTIPLY

inline void multiply_amx(const TileProduct& p) {
  if (p.rows > kTileLines) {
    (p.right_tiles == 2 ? multiply_tiles<2, 2> : multiply_tiles<2, 1>)(p);
  } else {
    (p.right_tiles == 2 ? multiply_tiles<1, 2> : multiply_tiles<1, 1>)(p);
  }
}

/// Rows [row, row + Rows) by vdpbf16ps.
template <int Rows, int RightTiles>
ESP_TARGET_AVX512 ESP_SIMD_INLINE void multiply_pairs(const TileProduct& p, int row) {
  using Raw = simd::Vec<float, 16>::Raw;
  using RawPairs = simd::detail::Raw<std::uint32_t, 16>;
  float* const sums = p.sums + row * p.sums_stride;
  Raw acc[Rows][RightTiles];
  ESP_UNROLL
  for (int i = 0; i < Rows; ++i) {
    ESP_UNROLL
    for (int j = 0; j < RightTiles; ++j) {
      acc[i][j] = Raw{};
      if (p.resume) __builtin_memcpy(&acc[i][j], sums + i * p.sums_stride + 16 * j, 64);
    }
  }
  const std::byte* right = p.right;
  for (std::int64_t step = 0; step < p.steps; ++step, right += RightTiles * kTileBytes) {
    const bool last = p.left_last && step + 1 == p.steps;
    const std::int64_t stride = last ? 64 : p.left_stride;
    const std::byte* left = (last ? p.left_last : p.left + step * p.left_step) + row * stride;
    for (int pair = 0; pair < 16; ++pair) {
      Raw columns[RightTiles];
      ESP_UNROLL
      for (int j = 0; j < RightTiles; ++j) {
        __builtin_memcpy(&columns[j], right + j * kTileBytes + pair * 64, 64);
      }
      ESP_UNROLL
      for (int i = 0; i < Rows; ++i) {
        // One broadcast for all columns: a memory operand would be loaded again for each.
        std::uint32_t pair_of_row;
        __builtin_memcpy(&pair_of_row, left + i * stride + pair * 4, sizeof pair_of_row);
        const RawPairs both = pair_of_row - RawPairs{};
        ESP_UNROLL
        for (int j = 0; j < RightTiles; ++j) {
          asm("vdpbf16ps %2, %1, %0" : "+v"(acc[i][j]) : "v"(columns[j]), "v"(both));
        }
      }
    }
  }
  ESP_UNROLL
  for (int i = 0; i < Rows; ++i) {
    ESP_UNROLL
    for (int j = 0; j < RightTiles; ++j) {
      __builtin_memcpy(sums + i * p.sums_stride + 16 * j, &acc[i][j], 64);
    }
  }
}

template <int RightTiles, int Rows = 8>
ESP_TARGET_AVX512 ESP_SIMD_INLINE void multiply_rows(const TileProduct& p, int row = 0) {
  for (; row + Rows <= p.rows; row += Rows) multiply_pairs<Rows, RightTiles>(p, row);
  if constexpr (Rows > 1) {
    if (row < p.rows) multiply_rows<RightTiles, Rows / 2>(p, row);
  }
}
ESP_TARGET_AVX512 inline void multiply_avx512_bf16(const TileProduct& p) {
  if (p.right_tiles == 2) {
    multiply_rows<2>(p);
  } else {
    multiply_rows<1>(p);
  }
}

#endif

}  // namespace espalier::cpu::detail
