// SPDX-License-Identifier: Apache-2.0
// Launches of the kernel simulator, the three schedules, and what a kernel may call: barriers, warp
// collectives, shared memory, asynchronous copies, integer atomics.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "block.hpp"

enum cudaError : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorNotSupported = 801,
};
using cudaError_t = cudaError;
struct CUstream_st;
using cudaStream_t = CUstream_st*;

// A default argument: the place of the call.
#define ESP_SIMULATOR_PLACE \
  ::espalier::simulator::Place place = {__builtin_FILE(), __builtin_LINE()}

namespace espalier::simulator {

/// What the last launches did; a test clears it and counts.
struct Log {
  std::vector<std::string> kernels;
};
inline Log g_log;
/// Called with true before a kernel runs and with false after it: device memory opens and closes.
inline void (*g_while_kernels_run)(bool) = nullptr;
inline std::size_t g_dynamic_shared_bytes = 0;
inline std::map<const void*, int> g_dynamic_limits;  // of cudaFuncSetAttribute
inline cudaError_t g_last_error = cudaSuccess;

/// Runs f() once under each schedule of threads and blocks; results must not depend on it.
template <class F>
void for_each_schedule(F&& f) {
  for (const Schedule s : {Schedule::forward, Schedule::reverse, Schedule::random}) {
    g_block.schedule = s;
    g_block.reseed(17);
    f(s);
  }
  g_block.schedule = Schedule::forward;
}

struct MemoryOpen {
  MemoryOpen() {
    if (g_while_kernels_run != nullptr) g_while_kernels_run(true);
  }
  ~MemoryOpen() {
    if (g_while_kernels_run != nullptr) g_while_kernels_run(false);
  }
  MemoryOpen(const MemoryOpen&) = delete;
  MemoryOpen& operator=(const MemoryOpen&) = delete;
};

inline bool g_only_last_block = false;
/// While one lives, a launch runs its last block alone: for sizes that would take hours otherwise.
struct OnlyLastBlock {
  OnlyLastBlock() { g_only_last_block = true; }
  ~OnlyLastBlock() { g_only_last_block = false; }
  OnlyLastBlock(const OnlyLastBlock&) = delete;
  OnlyLastBlock& operator=(const OnlyLastBlock&) = delete;
};

template <class... P>
struct Call {
  void (*kernel)(P...);
  std::tuple<P...> arguments;

  ESP_SIMULATOR_RAW static void run(void* self) {
    g_block.begin_fiber();
    auto* call = static_cast<Call*>(self);
    invoke(call);
    g_block.end_fiber();
  }
  static void invoke(Call* call) { std::apply(call->kernel, call->arguments); }
};

/// kernel<<<grid, block, shared_bytes>>>(arguments...), at once and in the schedule that is set.
/// @throws Error for what CUDA leaves undefined; returns what CUDA refuses.
template <class... P, class... A>
cudaError_t launch(const char* name, Place place, void (*kernel)(P...), dim3 grid, dim3 block,
                   std::size_t shared_bytes, cudaStream_t, A&&... arguments) {
  static_assert(sizeof...(P) == sizeof...(A), "launch: wrong number of kernel arguments");
  const std::uint64_t threads = std::uint64_t{block.x} * block.y * block.z;
  const std::uint64_t blocks = std::uint64_t{grid.x} * grid.y * grid.z;
  if (threads == 0 || threads > kMaxThreads || block.z > 64 || blocks == 0 ||
      grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
    return g_last_error = cudaErrorInvalidConfiguration;
  }
  const auto limit = g_dynamic_limits.find(reinterpret_cast<const void*>(kernel));
  const std::size_t allowed =
      limit == g_dynamic_limits.end() ? SharedMemory::kMaxStaticBytes : std::size_t(limit->second);
  if (shared_bytes > allowed) return g_last_error = cudaErrorInvalidValue;
  Call<P...> call{kernel, std::tuple<P...>(std::forward<A>(arguments)...)};

  const Unobserved unobserved;
  const MemoryOpen open;
  g_log.kernels.emplace_back(name);
  g_dynamic_shared_bytes = shared_bytes;
  gridDim = grid;
  std::vector<std::uint64_t> order(blocks);
  std::iota(order.begin(), order.end(), std::uint64_t{0});
  if (g_only_last_block) order = {blocks - 1};
  if (g_block.schedule == Schedule::reverse) std::reverse(order.begin(), order.end());
  if (g_block.schedule == Schedule::random) {
    std::mt19937_64 random(blocks);
    std::shuffle(order.begin(), order.end(), random);
  }
  for (const std::uint64_t b : order) {
    const uint3 index{static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x % grid.y),
                      static_cast<unsigned>(b / (std::uint64_t{grid.x} * grid.y))};
    try {
      g_block.run(index, block, &Call<P...>::run, &call);
    } catch (const Error& e) {
      throw Error(std::string(e.what()) + "\n  in block (" + std::to_string(index.x) + ", " +
                  std::to_string(index.y) + ", " + std::to_string(index.z) + ") of " + name +
                  ", launched at " + place.text());
    }
  }
  return cudaSuccess;
}

// --- shared memory -------------------------------------------------------------------------------
template <class Key>
inline constexpr char kKeyOf = 0;

template <class T, class Key>
T& shared_variable(Key, const char* name, const char* file, int line) {
  static_assert(std::is_trivially_destructible_v<T>, "shared variables are raw memory");
  return *reinterpret_cast<T*>(g_shared.variable(&kKeyOf<Key>, sizeof(T), name, file, line));
}

template <class T>
T* dynamic_shared(const char* name, const char* file, int line) {
  static_assert(alignof(T) <= 128, "dynamic shared memory is aligned to 128 bytes here");
  return reinterpret_cast<T*>(
      g_shared.variable(&g_dynamic_shared_bytes, g_dynamic_shared_bytes, name, file, line));
}

// --- warp collectives ----------------------------------------------------------------------------
template <class Operand>
void collective(const char* what, unsigned mask, Operand& operand, Resolve resolve, Place place) {
  g_block.warp(what, mask, &operand, resolve, place);
}

struct Exchange {
  std::uint64_t value;
  int source;  // lane to read; -1 keeps the own value
  Place place;
};

inline void exchange_values(void* const* operands, unsigned mask) {
  std::uint64_t sent[kLanes];
  for (unsigned l = 0; l < kLanes; ++l) {
    if (mask >> l & 1u) sent[l] = static_cast<Exchange*>(operands[l])->value;
  }
  for (unsigned l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1u)) continue;
    auto* e = static_cast<Exchange*>(operands[l]);
    if (e->source < 0) continue;
    if (!(mask >> e->source & 1u)) {
      throw Error(e->place.text() + ": shuffle: lane " + std::to_string(l) + " reads lane " +
                  std::to_string(e->source) + ", which is not in the mask");
    }
    e->value = sent[e->source];
  }
}

inline unsigned lane_id() {
  return g_block.current().lane();
}

template <class T>
T shuffle(const char* what, unsigned mask, T value, int source, Place place) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  Exchange e{0, source, place};
  std::memcpy(&e.value, &value, sizeof(T));
  collective(what, mask, e, exchange_values, place);
  std::memcpy(&value, &e.value, sizeof(T));
  return value;
}

struct Vote {
  std::uint64_t value;
  unsigned result;
};

inline void vote(void* const* operands, unsigned mask) {
  unsigned result = 0;
  for (unsigned l = 0; l < kLanes; ++l) {
    if (mask >> l & 1u && static_cast<Vote*>(operands[l])->value != 0) result |= 1u << l;
  }
  for (unsigned l = 0; l < kLanes; ++l) {
    if (mask >> l & 1u) static_cast<Vote*>(operands[l])->result = result;
  }
}

inline void match(void* const* operands, unsigned mask) {
  for (unsigned l = 0; l < kLanes; ++l) {
    if (!(mask >> l & 1u)) continue;
    auto* own = static_cast<Vote*>(operands[l]);
    own->result = 0;
    for (unsigned o = 0; o < kLanes; ++o) {
      if (mask >> o & 1u && static_cast<Vote*>(operands[o])->value == own->value) {
        own->result |= 1u << o;
      }
    }
  }
}

}  // namespace espalier::simulator
