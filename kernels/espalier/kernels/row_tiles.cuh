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

struct GroupTile {
  int group;           // -1: none
  std::int64_t first;  // row of the group
};

/// The `tile`-th tile of `height` rows, group by group, where group g has rows_of(g) rows; for
/// whole warps, 32 groups at a time.
template <class RowsOf>
__device__ __forceinline__ GroupTile find_group_tile(int groups, std::int64_t tile, int height,
                                                     const RowsOf& rows_of) {
  const int lane = threadIdx.x % kWarp;
  for (int first = 0; first < groups; first += kWarp) {
    const std::int64_t rows = first + lane < groups ? rows_of(first + lane) : 0;
    const int own = static_cast<int>(ceil_div<std::int64_t>(rows, height));
    int upto = own;  // tiles of the lanes up to this one
#pragma unroll
    for (int distance = 1; distance < kWarp; distance *= 2) {
      const int before = __shfl_up_sync(kAllLanes, upto, distance);
      if (lane >= distance) upto += before;
    }
    const unsigned reached = __ballot_sync(kAllLanes, tile < upto);
    if (reached != 0) {
      const int owner = __ffs(static_cast<int>(reached)) - 1;
      return {first + owner, (tile - __shfl_sync(kAllLanes, upto - own, owner)) * height};
    }
    tile -= __shfl_sync(kAllLanes, upto, kWarp - 1);
  }
  return {-1, 0};
}

struct RowTile {
  int group;                // -1: none
  std::int64_t begin, end;  // rows
};

/// The same for groups whose rows are offsets[g] .. offsets[g + 1] - 1 of an array.
__device__ __forceinline__ RowTile find_row_tile(const std::int32_t* offsets, int groups,
                                                 std::int64_t tile, int height) {
  const GroupTile t = find_group_tile(
      groups, tile, height, [&](int g) { return std::int64_t{offsets[g + 1]} - offsets[g]; });
  if (t.group < 0) return {-1, 0, 0};
  const std::int64_t from = offsets[t.group] + t.first, to = offsets[t.group + 1];
  return {t.group, from, from + height < to ? from + height : to};
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
