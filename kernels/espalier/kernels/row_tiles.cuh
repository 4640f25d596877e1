// SPDX-License-Identifier: Apache-2.0
// Tiles of rows that do not cross the borders of groups, where the borders are only known on the
// device: the grid covers the most tiles that any borders can need, and each block looks its own
// up.
#pragma once

#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

/// Row tiles of `height` that any offsets over `rows` rows can need: each group may waste one.
constexpr std::int64_t most_row_tiles(std::int64_t rows, int groups, int height) {
  return rows / height + (rows < groups ? rows : groups);
}

struct RowTile {
  int group;                // -1: none
  std::int64_t begin, end;  // rows
};

/// The `tile`-th row tile, group by group; for whole warps, 32 groups at a time.
__device__ __forceinline__ RowTile find_row_tile(const std::int32_t* offsets, int groups,
                                                 std::int64_t tile, int height) {
  const int lane = threadIdx.x % kWarp;
  for (int first = 0; first < groups; first += kWarp) {
    const int group = first + lane;
    const int begin = group < groups ? offsets[group] : 0;
    const int end = group < groups ? offsets[group + 1] : 0;
    const int own = ceil_div(end - begin, height);
    int upto = own;  // tiles of the lanes up to this one
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const int before = __shfl_up_sync(kAllLanes, upto, distance);
      if (lane >= distance) upto += before;
    }
    const unsigned reached = __ballot_sync(kAllLanes, tile < upto);
    if (reached != 0) {
      const int owner = __ffs(static_cast<int>(reached)) - 1;
      const int skipped = __shfl_sync(kAllLanes, upto - own, owner);
      const std::int64_t from = __shfl_sync(kAllLanes, begin, owner) + (tile - skipped) * height;
      const std::int64_t to = __shfl_sync(kAllLanes, end, owner);
      return {first + owner, from, from + height < to ? from + height : to};
    }
    tile -= __shfl_sync(kAllLanes, upto, kWarp - 1);
  }
  return {-1, 0, 0};
}

inline constexpr int kTileBand = 8;  // row tiles that are neighbours in time

struct TileIndex {
  std::int64_t row, col;
};
/// Order of tiles in time: down the columns of a band of row tiles, so that the band of a and the
/// column of b stay in the L2 cache.
__device__ __forceinline__ TileIndex tile_of_block(std::int64_t block, std::int64_t row_tiles,
                                                   std::int64_t col_tiles) {
  const std::int64_t first = block / (kTileBand * col_tiles) * kTileBand;
  const std::int64_t left = row_tiles - first, height = left < kTileBand ? left : kTileBand;
  const std::int64_t within = block - first * col_tiles;
  return {first + within % height, within / height};
}

}  // namespace espalier::kernels
