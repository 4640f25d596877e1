// SPDX-License-Identifier: Apache-2.0
// mma.sync and ldmatrix as warp collectives: fragments are gathered into whole matrices by the lane
// maps of the PTX manual, multiplied in plain loops, and scattered again. And cp.async, which lands
// no sooner than it must.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "cuda_bf16.h"
#include "cuda_fp16.h"
#include "launch.hpp"

namespace espalier::simulator {

struct MmaOperand {
  float* d;
  const unsigned* a;
  const unsigned* b;
};

inline float element_of(__nv_bfloat16 v) {
  return __bfloat162float(v);
}
inline float element_of(__half v) {
  return __half2float(v);
}

/// Column or row `half` (0 or 1) of a register with two elements.
template <class T>
float half_of(unsigned pair, int half) {
  return element_of(std::bit_cast<T>(static_cast<std::uint16_t>(pair >> (16 * half))));
}

template <class T>
unsigned pair_of(T low, T high) {
  return std::bit_cast<std::uint16_t>(low) | unsigned{std::bit_cast<std::uint16_t>(high)} << 16;
}

template <class T>
void multiply_tiles(void* const* operands, unsigned mask) {
  if (mask != 0xffffffffu) throw Error("mma_m16n8k16: the whole warp must take part");
  float a[16][16], b[16][8];
  for (int lane = 0; lane < 32; ++lane) {
    const auto& o = *static_cast<const MmaOperand*>(operands[lane]);
    const int g = lane / 4, q = lane % 4;
    for (int i = 0; i < 8; ++i) {
      a[g + 8 * (i / 2 % 2)][2 * q + 8 * (i / 4) + i % 2] = half_of<T>(o.a[i / 2], i % 2);
    }
    for (int i = 0; i < 4; ++i) b[2 * q + 8 * (i / 2) + i % 2][g] = half_of<T>(o.b[i / 2], i % 2);
  }
  for (int lane = 0; lane < 32; ++lane) {
    const auto& o = *static_cast<const MmaOperand*>(operands[lane]);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
      float sum = o.d[i];
      for (int k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
      o.d[i] = sum;
    }
  }
}

template <class T>
void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2],
                  ESP_SIMULATOR_PLACE) {
  MmaOperand operand{d, a, b};
  collective("mma_m16n8k16", 0xffffffffu, operand, multiply_tiles<T>, place);
}

struct TileOperand {
  std::uint16_t row[8];  // which this lane brought
  unsigned* registers;
};

template <int kTiles, bool kTransposed>
void spread_tiles(void* const* operands, unsigned mask) {
  if (mask != 0xffffffffu) throw Error("ldmatrix: the whole warp must take part");
  for (int lane = 0; lane < 32; ++lane) {
    const auto& own = *static_cast<const TileOperand*>(operands[lane]);
    for (int t = 0; t < kTiles; ++t) {
      auto tile = [&](int r, int c) {
        return static_cast<const TileOperand*>(operands[8 * t + r])->row[c];
      };
      const int row = lane / 4, column = 2 * (lane % 4);
      const unsigned low = kTransposed ? tile(column, row) : tile(row, column);
      const unsigned high = kTransposed ? tile(column + 1, row) : tile(row, column + 1);
      own.registers[t] = low | high << 16;
    }
  }
}

template <int kTiles, bool kTransposed>
void load_tiles(unsigned (&r)[kTiles], const void* row, ESP_SIMULATOR_PLACE) {
  if (reinterpret_cast<std::uintptr_t>(row) % 16 != 0 || !g_shared.contains(row)) {
    g_block.refuse(place.text() + ": ldmatrix: row is not in shared memory, aligned to 16 bytes");
  }
  TileOperand operand;
  operand.registers = r;
  // Each lane reads its own row, so that TSan and ASan see who reads what.
  if (static_cast<int>(lane_id()) < 8 * kTiles) std::memcpy(operand.row, row, 16);
  collective("ldmatrix", 0xffffffffu, operand, spread_tiles<kTiles, kTransposed>, place);
}

// The destination is undefined from issue to wait: it is filled with NaN, and written by the wait.
inline void async_copy(void* to, const void* from, unsigned bytes, unsigned valid,
                       ESP_SIMULATOR_PLACE) {
  if (reinterpret_cast<std::uintptr_t>(to) % bytes != 0 || !g_shared.contains(to) ||
      (valid > 0 && reinterpret_cast<std::uintptr_t>(from) % bytes != 0) || valid > bytes) {
    g_block.refuse(place.text() + ": cp.async: copies " + std::to_string(bytes) +
                   " bytes aligned to them from global to shared memory");
  }
  std::memset(to, 0xff, bytes);
  g_block.current().copies.push_back({to, from, bytes, valid});
}

inline void async_commit() {
  Thread& t = g_block.current();
  t.copy_ends.push_back(t.copies.size());
}

inline void async_wait(std::size_t newest_groups_left) {
  Thread& t = g_block.current();
  if (t.copy_ends.size() <= newest_groups_left) return;
  const std::size_t groups = t.copy_ends.size() - newest_groups_left;
  const std::size_t end = t.copy_ends[groups - 1];
  for (std::size_t i = 0; i < end; ++i) {
    const PendingCopy& c = t.copies[i];
    std::memcpy(c.to, c.from, c.valid);
    std::memset(static_cast<char*>(c.to) + c.valid, 0, c.bytes - c.valid);
  }
  t.copies.erase(t.copies.begin(), t.copies.begin() + static_cast<std::ptrdiff_t>(end));
  t.copy_ends.erase(t.copy_ends.begin(), t.copy_ends.begin() + static_cast<std::ptrdiff_t>(groups));
  for (std::size_t& e : t.copy_ends) e -= end;
}

}  // namespace espalier::simulator
