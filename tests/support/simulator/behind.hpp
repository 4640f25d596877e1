// SPDX-License-Identifier: Apache-2.0
// What the hardware of sm_90 does behind the threads of a block, as far as the block must know:
// bulk copies under way, transaction barriers, matrix products of warpgroups (hopper.hpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

namespace espalier::simulator {

struct Thread;
using Ready = bool (*)(Thread&);  // asked by the scheduler

struct MbarrierState {
  unsigned arrivals = 0, pending = 0;  // of a phase; still to come in this one
  std::int64_t bytes = 0;              // announced and not yet copied
  unsigned phase = 0;
  const Thread* owner = nullptr;  // who made it
  bool visible = false;           // to TMA
  char key = 0;
};

/// Matrix products as one thread of the warpgroup sees them.
struct Products {
  struct Issued {
    void (*multiply)(Thread* group, const Issued& product);
    std::uint64_t a, b;

    bool operator==(const Issued&) const = default;
  };
  std::vector<Issued> issued;
  std::vector<std::size_t> ends;  // of each committed group in `issued`
  float* d = nullptr;             // registers that products write; meanwhile they hold NaN
  std::vector<float> sums;        // what they will hold
  std::size_t left = 0;           // groups that the wait leaves under way
  bool fenced = false, done = false;
};

struct Behind {
  std::vector<std::function<void()>> work;  // done in any order, as late as may be
  std::map<const void*, MbarrierState> mbarriers;
  std::set<const void*> acquired_maps;
};

}  // namespace espalier::simulator
