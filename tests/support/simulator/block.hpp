// SPDX-License-Identifier: Apache-2.0
// Runs the threads of one block after another as fibers until each has ended. A thread runs until
// it waits: at a barrier for the whole block, in a warp collective for the lanes its mask names, or
// until a condition holds. What the hardware does behind the threads is done when none can move.
// Whatever CUDA leaves undefined there is an Error that names the place in the kernel.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <iterator>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "behind.hpp"
#include "shared_memory.hpp"

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;

namespace espalier::simulator {

enum class Schedule { forward, reverse, random };

inline constexpr unsigned kLanes = 32;
inline constexpr unsigned kMaxThreads = 1024;
inline constexpr unsigned kWarpgroupThreads = 128;

/// Combines what the lanes of a warp brought: operands[lane], null for lanes outside the mask.
using Resolve = void (*)(void* const* operands, unsigned mask);

struct PendingCopy {
  void* to;
  const void* from;
  unsigned bytes, valid;
};

struct Thread {
  enum class State : unsigned char { runnable, at_barrier, in_warp, until_ready, refused, ended };
  Fiber fiber;
  uint3 index{};
  unsigned linear = 0;
  State state = State::ended;
  // What it waits for.
  const char* what = "";
  Place place;
  unsigned mask = 0;
  void* operand = nullptr;
  Resolve resolve = nullptr;
  Ready ready = nullptr;
  const void* mbarrier = nullptr;
  unsigned parity = 0;
  // Order that barriers give, for TSan: two keys in turn, for a thread may be one phase ahead.
  unsigned barrier_phase = 0, warp_phase = 0;
  char warp_keys[2];
  std::vector<PendingCopy> copies;     // cp.async issued and not yet landed
  std::vector<std::size_t> copy_ends;  // end of each committed group in `copies`
  Products products;
  std::vector<void*> written_maps;  // tensor maps that it wrote and has not published

  unsigned lane() const { return linear % kLanes; }
  std::string name() const {
    return "thread (" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " +
           std::to_string(index.z) + ")";
  }
  std::string waits() const { return std::string(what) + " at " + place.text(); }
};

class Block {
 public:
  Schedule schedule = Schedule::forward;
  Behind behind;

  /// Runs body(argument) once for every thread of `block` at `index` of the grid.
  void run(uint3 index, dim3 block, void (*body)(void*), void* argument) {
    const unsigned n = block.x * block.y * block.z;
    blockIdx = index;
    blockDim = block;
    size_ = live_ = n;
    for (unsigned i = 0; i < n; ++i) begin_thread(i, block, body, argument);
    arrived_ = 0;
    std::fill(std::begin(in_warp_), std::end(in_warp_), 0u);
    g_shared.begin_block();
    publish(&begin_key_);
    order_.resize(n);
    std::iota(order_.begin(), order_.end(), 0u);
    if (schedule == Schedule::reverse) std::reverse(order_.begin(), order_.end());
    try {
      run_to_end();
    } catch (...) {
      retire_all();
      throw;
    }
    observe(&end_key_);
    if (!behind.work.empty()) throw Error("the block ended before a bulk copy that it started");
    g_shared.end_block();
  }

  void reseed(std::uint64_t value) { random_.seed(value); }

  // --- called by threads -------------------------------------------------------------------------
  Thread& current() { return *current_; }

  ESP_SIMULATOR_RAW void barrier(Place place) {
    Thread& t = *current_;
    char* key = &barrier_keys_[t.barrier_phase++ % 2];
    publish(key);
    wait(t, Thread::State::at_barrier, "__syncthreads", place);
    observe(key);
  }

  ESP_SIMULATOR_RAW void warp(const char* what, unsigned mask, void* operand, Resolve resolve,
                              Place place) {
    Thread& t = *current_;
    t.mask = mask;
    t.operand = operand;
    t.resolve = resolve;
    wait(t, Thread::State::in_warp, what, place);
  }

  ESP_SIMULATOR_RAW void warp_barrier(unsigned mask, Place place) {
    Thread& t = *current_;
    unsigned turn = t.warp_phase++ % 2;  // in: my key; out: bit l is the turn of lane l
    publish(&t.warp_keys[turn]);
    warp("__syncwarp", mask, &turn, collect_turns, place);
    for (unsigned lane = 0; lane < kLanes; ++lane) {
      if (mask >> lane & 1u) observe(&lane_of(t, lane).warp_keys[turn >> lane & 1u]);
    }
  }

  /// Sleeps until ready(thread).
  ESP_SIMULATOR_RAW void wait_until(const char* what, Ready ready, Place place) {
    Thread& t = *current_;
    t.ready = ready;
    wait(t, Thread::State::until_ready, what, place);
  }
  /// The threads of the warpgroup of `t`, side by side; null where the block has fewer.
  Thread* warpgroup(const Thread& t) {
    const unsigned first = t.linear / kWarpgroupThreads * kWarpgroupThreads;
    return first + kWarpgroupThreads <= size_ ? threads_ + first : nullptr;
  }

  /// Ends the launch: the thread did what CUDA leaves undefined.
  [[noreturn]] ESP_SIMULATOR_RAW void refuse(std::string message) {
    refusal_ = new std::string(std::move(message));
    current_->state = Thread::State::refused;
    leave_fiber();
    __builtin_trap();
  }

  ESP_SIMULATOR_RAW void begin_fiber() { observe(&begin_key_); }
  ESP_SIMULATOR_RAW void end_fiber() {
    publish(&end_key_);
    current_->state = Thread::State::ended;
  }

 private:
  void begin_thread(unsigned i, dim3 block, void (*body)(void*), void* argument) {
    Thread& t = threads_[i];
    prepare_fiber(t.fiber, body, argument);
    t.index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    t.linear = i;
    t.state = Thread::State::runnable;
    t.barrier_phase = t.warp_phase = 0;
    t.copies.clear();
    t.copy_ends.clear();
    t.products = {};
    t.written_maps.clear();
  }

  ESP_SIMULATOR_SCHEDULER void run_to_end() {
    behind = {};
    while (live_ > 0) {
      if (schedule == Schedule::random) std::shuffle(order_.begin(), order_.end(), random_);
      bool moved = false;
      for (const unsigned i : order_) {
        Thread& t = threads_[i];
        if (t.state == Thread::State::until_ready && t.ready(t)) t.state = Thread::State::runnable;
        if (t.state != Thread::State::runnable) continue;
        moved = true;
        threadIdx = t.index;
        current_ = &t;
        enter_fiber(t.fiber);
        after_run(t);
      }
      if (!moved && behind.work.empty()) refuse_deadlock();
      if (!moved || (schedule == Schedule::random && !behind.work.empty() && random_() % 4 == 0)) {
        work_behind();
      }
    }
  }

  void work_behind() {
    const std::size_t last = behind.work.size() - 1;
    const std::size_t i = schedule == Schedule::forward   ? 0
                          : schedule == Schedule::reverse ? last
                                                          : random_() % behind.work.size();
    const auto work = std::move(behind.work[i]);
    behind.work.erase(behind.work.begin() + static_cast<std::ptrdiff_t>(i));
    work();
  }

  void retire_all() {
    for (unsigned i = 0; i < size_; ++i) {
      Thread& t = threads_[i];
      if (t.state == Thread::State::ended) continue;
      retire_fiber(t.fiber, &end_key_);
      t.state = Thread::State::ended;
      std::vector<PendingCopy>().swap(t.copies);
      std::vector<std::size_t>().swap(t.copy_ends);
    }
    observe(&end_key_);
  }

  ESP_SIMULATOR_RAW static void wait(Thread& t, Thread::State state, const char* what,
                                     Place place) {
    t.state = state;
    t.what = what;
    t.place = place;
    leave_fiber();
  }

  ESP_SIMULATOR_SCHEDULER Thread& lane_of(const Thread& t, unsigned lane) {
    return threads_[t.linear / kLanes * kLanes + lane];
  }

  static void collect_turns(void* const* operands, unsigned mask) {
    unsigned turns = 0;
    for (unsigned l = 0; l < kLanes; ++l) {
      if (mask >> l & 1u) turns |= *static_cast<unsigned*>(operands[l]) << l;
    }
    for (unsigned l = 0; l < kLanes; ++l) {
      if (mask >> l & 1u) *static_cast<unsigned*>(operands[l]) = turns;
    }
  }

  ESP_SIMULATOR_SCHEDULER void after_run(Thread& t) {
    switch (t.state) {
      case Thread::State::runnable:
      case Thread::State::until_ready:
        break;
      case Thread::State::at_barrier:
        if (arrived_ > 0 && !(first_->place == t.place)) {
          throw Error(t.place.text() + ": " + t.name() + " waits at this barrier, " +
                      first_->name() + " at the one of " + first_->place.text());
        }
        if (arrived_++ == 0) first_ = &t;
        release_barrier();
        break;
      case Thread::State::in_warp:
        arrive_in_warp(t);
        break;
      case Thread::State::refused:
        throw Error(*std::unique_ptr<std::string>(std::exchange(refusal_, nullptr)));
      case Thread::State::ended:
        --live_;
        if (!t.products.issued.empty()) throw Error(t.name() + " ended before its products");
        for (unsigned lane = 0; lane < warp_size(t); ++lane) {
          const Thread& other = lane_of(t, lane);
          if (other.state == Thread::State::in_warp && other.mask >> t.lane() & 1u) {
            refuse_exited(other, t.lane());
          }
        }
        release_barrier();
        break;
    }
  }

  ESP_SIMULATOR_SCHEDULER void release_barrier() {
    if (arrived_ == 0 || arrived_ < live_) return;
    arrived_ = 0;
    for (unsigned i = 0; i < size_; ++i) {
      if (threads_[i].state == Thread::State::at_barrier) {
        threads_[i].state = Thread::State::runnable;
      }
    }
  }

  ESP_SIMULATOR_SCHEDULER unsigned warp_size(const Thread& t) const {
    return std::min(kLanes, size_ - t.linear / kLanes * kLanes);
  }

  ESP_SIMULATOR_SCHEDULER void arrive_in_warp(const Thread& t) {
    const unsigned in_warp = ++in_warp_[t.linear / kLanes];
    // Whatever is wrong with fewer lanes shows when no thread can move any more.
    if (in_warp >= static_cast<unsigned>(std::popcount(t.mask))) meet_in_warp(t);
  }

  /// Does the collective of `t` when all lanes of its mask are there.
  ESP_SIMULATOR_SCHEDULER void meet_in_warp(const Thread& t) {
    const auto here = [&t] { return t.place.text() + ": " + t.what + ": "; };
    if (!(t.mask >> t.lane() & 1u)) {
      throw Error(here() + "lane " + std::to_string(t.lane()) + " is not in its mask " +
                  hex(t.mask));
    }
    const unsigned lanes = warp_size(t);
    unsigned present = 0;
    void* operands[kLanes] = {};
    for (unsigned l = 0; l < kLanes; ++l) {
      if (!(t.mask >> l & 1u)) continue;
      if (l >= lanes) {
        throw Error(here() + "mask " + hex(t.mask) + " names lane " + std::to_string(l) +
                    ", but the last warp of the block has " + std::to_string(lanes) + " lanes");
      }
      const Thread& other = lane_of(t, l);
      if (other.state == Thread::State::ended) refuse_exited(t, l);
      if (other.state != Thread::State::in_warp) continue;
      if (other.mask != t.mask) {
        if (!(other.mask >> t.lane() & 1u)) continue;  // it waits for others first
        throw Error(here() + "lanes disagree about the mask: lane " + std::to_string(t.lane()) +
                    " says " + hex(t.mask) + ", lane " + std::to_string(l) + " says " +
                    hex(other.mask) + " in " + other.waits());
      }
      if (other.resolve != t.resolve) {
        throw Error(here() + "lane " + std::to_string(l) + " is in " + other.waits());
      }
      present |= 1u << l;
      operands[l] = other.operand;
    }
    if (present != t.mask) return;
    if (t.resolve != nullptr) t.resolve(operands, t.mask);
    for (unsigned l = 0; l < lanes; ++l) {
      if (t.mask >> l & 1u) lane_of(t, l).state = Thread::State::runnable;
    }
    in_warp_[t.linear / kLanes] -= static_cast<unsigned>(std::popcount(t.mask));
  }

  [[noreturn]] static void refuse_exited(const Thread& t, unsigned lane) {
    throw Error(t.place.text() + ": " + t.what + ": mask " + hex(t.mask) + " names lane " +
                std::to_string(lane) + ", which has exited");
  }

  [[noreturn]] void refuse_deadlock() {
    for (unsigned i = 0; i < size_; ++i) {
      if (threads_[i].state == Thread::State::in_warp) meet_in_warp(threads_[i]);
    }
    const auto first = [&](Thread::State state) {
      const Thread* found = std::find_if(threads_, threads_ + size_,
                                         [&](const Thread& t) { return t.state == state; });
      return found == threads_ + size_ ? nullptr : found;
    };
    const Thread* barrier = first(Thread::State::at_barrier);
    const Thread* other = first(Thread::State::in_warp);
    if (const Thread* until = first(Thread::State::until_ready)) {
      throw Error(until->place.text() + ": deadlock: " + until->name() + " is in " +
                  until->waits() + ", and nothing will end it");
    }
    if (barrier != nullptr && other != nullptr) {
      throw Error(barrier->place.text() + ": deadlock: " + barrier->name() +
                  " waits at a barrier that " + other->name() + " never reaches: it is in " +
                  other->waits());
    }
    throw Error(other->place.text() + ": deadlock: " + other->name() + " is in " + other->waits() +
                " with mask " + hex(other->mask) + ", and not all its lanes come");
  }

  static std::string hex(unsigned mask) {
    char text[11];
    std::snprintf(text, sizeof text, "0x%08x", mask);
    return text;
  }

  // A plain pointer beside the owner: calls of its operators would be instrumented.
  const std::unique_ptr<Thread[]> owned_ = std::make_unique<Thread[]>(kMaxThreads);
  Thread* const threads_ = owned_.get();
  std::vector<unsigned> order_;
  std::mt19937_64 random_;
  Thread* current_ = nullptr;
  std::string* refusal_ = nullptr;
  const Thread* first_ = nullptr;  // the first to arrive at the barrier
  unsigned size_ = 0, live_ = 0, arrived_ = 0;
  unsigned in_warp_[kMaxThreads / kLanes] = {};  // lanes of each warp that wait in a collective
  char begin_key_, end_key_, barrier_keys_[2];
};

inline Block g_block;

}  // namespace espalier::simulator
