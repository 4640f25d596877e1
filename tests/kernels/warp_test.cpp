// SPDX-License-Identifier: Apache-2.0
// Warp collectives against their definition in the PTX manual.
#include <espalier/kernels/device.cuh>
#include <vector>

#include "kernels/device_vector.hpp"
#include "support/catch.hpp"

using namespace espalier::kernels;
using espalier::simulator::for_each_schedule;
using espalier::simulator::Schedule;
using espalier::test::DeviceVector;

namespace {

enum class Way { index, exclusive_or, down, up };

__global__ void shuffle_kernel(int* y, Way way, int argument, int width) {
  const int v = static_cast<int>(threadIdx.x) + 100;
  int r = 0;
  switch (way) {
    case Way::index:
      r = __shfl_sync(kAllLanes, v, argument, width);
      break;
    case Way::exclusive_or:
      r = __shfl_xor_sync(kAllLanes, v, argument, width);
      break;
    case Way::down:
      r = __shfl_down_sync(kAllLanes, v, static_cast<unsigned>(argument), width);
      break;
    case Way::up:
      r = __shfl_up_sync(kAllLanes, v, static_cast<unsigned>(argument), width);
      break;
  }
  y[threadIdx.x] = r;
}

// The pseudo-code of shfl.sync, with c as nvcc makes it from `width`.
int definition(Way way, int lane, int argument, int width) {
  const int segment = 32 - width, clamp = way == Way::up ? 0 : 0x1f;
  const int limit = (lane & segment) | (clamp & ~segment);
  int from = lane;
  bool valid = true;
  switch (way) {
    case Way::index:
      from = (lane & segment) | (argument & ~segment & 0x1f);
      valid = from <= limit;
      break;
    case Way::exclusive_or:
      from = lane ^ argument;
      valid = from <= limit;
      break;
    case Way::down:
      from = lane + argument;
      valid = from <= limit;
      break;
    case Way::up:
      from = lane - argument;
      valid = from >= limit;
      break;
  }
  return 100 + (valid ? from : lane);
}

struct Votes {
  unsigned ballot, match;
  int any, all;
};

__global__ void vote_kernel(Votes* y, int below) {
  const int lane = static_cast<int>(threadIdx.x);
  Votes v;
  v.ballot = __ballot_sync(kAllLanes, lane < below);
  v.any = __any_sync(kAllLanes, lane < below);
  v.all = __all_sync(kAllLanes, lane < below);
  v.match = __match_any_sync(kAllLanes, lane * lane % 8);
  y[lane] = v;
}

// Odd and even lanes exchange among themselves, each group at a pace of its own.
__global__ void halves_kernel(int* y) {
  const int lane = static_cast<int>(threadIdx.x);
  int v = lane;
  if (lane % 2 == 0) {
    for (int step = 2; step < 32; step *= 2) v += __shfl_xor_sync(0x55555555u, v, step);
  } else {
    v = __shfl_sync(0xaaaaaaaau, v, 31);
  }
  __syncwarp();
  y[lane] = v;
}

// Order through __syncwarp alone.
__global__ void syncwarp_kernel(int* y) {
  ESP_SHARED(int[2][64], row);
  for (int round = 0; round < 6; ++round) {
    row[round % 2][threadIdx.x] = static_cast<int>(threadIdx.x) + round;
    __syncwarp();
    y[threadIdx.x] = row[round % 2][threadIdx.x ^ 5];
  }
}

}  // namespace

TEST_CASE("simulator: shuffles follow the PTX definition", "[kernels][simulator]") {
  for_each_schedule([&](Schedule) {
    for (const Way way : {Way::index, Way::exclusive_or, Way::down, Way::up}) {
      for (const int width : {32, 16, 8, 4, 2, 1}) {
        for (const int argument : {0, 1, 3, 7, 16, 31}) {
          DeviceVector<int> y(32);
          ESP_LAUNCH(shuffle_kernel, 1, 32, 0, nullptr, y.data(), way, argument, width);
          for (int l = 0; l < 32; ++l) {
            CAPTURE(static_cast<int>(way), width, argument, l);
            REQUIRE(y[l] == definition(way, l, argument, width));
          }
        }
      }
    }
  });
}

TEST_CASE("simulator: votes and matches", "[kernels][simulator]") {
  for_each_schedule([&](Schedule) {
    for (const int below : {0, 5, 32}) {
      DeviceVector<Votes> y(32);
      ESP_LAUNCH(vote_kernel, 1, 32, 0, nullptr, y.data(), below);
      for (int l = 0; l < 32; ++l) {
        REQUIRE(y[l].ballot == (below == 32 ? kAllLanes : (1u << below) - 1));
        REQUIRE(y[l].any == (below > 0));
        REQUIRE(y[l].all == (below == 32));
        unsigned same = 0;
        for (int o = 0; o < 32; ++o) same |= unsigned{o * o % 8 == l * l % 8} << o;
        REQUIRE(y[l].match == same);
      }
    }
  });
}

TEST_CASE("simulator: parts of a warp, and order within one", "[kernels][simulator]") {
  for_each_schedule([&](Schedule) {
    DeviceVector<int> y(64);
    ESP_LAUNCH(halves_kernel, 1, 32, 0, nullptr, y.data());
    for (int l = 0; l < 32; ++l) REQUIRE(y[l] == (l % 2 == 0 ? 240 : 31));
    ESP_LAUNCH(syncwarp_kernel, 1, 64, 0, nullptr, y.data());
    for (int t = 0; t < 64; ++t) REQUIRE(y[t] == (t ^ 5) + 5);
  });
}
