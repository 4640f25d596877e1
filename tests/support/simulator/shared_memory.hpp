// SPDX-License-Identifier: Apache-2.0
// Shared memory of the one simulated block that runs: an arena of which only the declared variables
// may be touched. Fresh bytes are 0xff (NaN in every float type). Red zones lie between variables;
// under ASan all else is poisoned, otherwise the zones are looked at when the block ends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

#include "fiber.hpp"

namespace espalier::simulator {

/// What CUDA leaves undefined, or refuses; the message begins with the place in the kernel.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Place {
  const char* file = "";
  int line = 0;

  std::string text() const { return std::string(file) + ":" + std::to_string(line); }
  bool operator==(const Place& other) const {
    return line == other.line && std::strcmp(file, other.file) == 0;
  }
};

class SharedMemory {
 public:
  static constexpr std::size_t kMaxBytes = 227 << 10;  // of a block on sm_90; 48 KiB of it static
  static constexpr std::size_t kMaxStaticBytes = 48 << 10;
  static constexpr std::size_t kRedZone = 128;

  /// Called by threads: the variable of that key, made at its first use in the block.
  ESP_SIMULATOR_RAW std::byte* variable(const void* key, std::size_t bytes, const char* name,
                                        const char* file, int line) {
    for (int i = 0; i < count_; ++i) {
      if (variables_[i].key == key) return arena_ + variables_[i].offset;
    }
    if (count_ == kMaxVariables || used_ + bytes + 2 * kRedZone > kArenaBytes) __builtin_trap();
    const std::size_t offset = used_ + kRedZone;
    variables_[count_++] = {key, offset, bytes, name, file, line};
    used_ = (offset + bytes + kRedZone - 1) / kRedZone * kRedZone;
#ifdef ESP_SIMULATOR_ASAN
    __asan_unpoison_memory_region(arena_ + offset, bytes);
#endif
    return arena_ + offset;
  }

  bool contains(const void* p) const {
    return p >= arena_ && p < arena_ + kArenaBytes;
  }

  /// Addresses as the hardware counts them, from the begin of shared memory.
  unsigned address(const void* p) const {
    return static_cast<unsigned>(static_cast<const std::byte*>(p) - arena_);
  }
  std::byte* at(unsigned address) {
    return arena_ + address;
  }

  void begin_block() {
#ifdef ESP_SIMULATOR_ASAN
    __asan_unpoison_memory_region(arena_, kArenaBytes);
#endif
    const std::size_t dirty = dirty_all_ ? kArenaBytes : used_ + 2 * kRedZone;
    std::memset(arena_, 0xff, dirty < kArenaBytes ? dirty : kArenaBytes);
#ifdef ESP_SIMULATOR_ASAN
    __asan_poison_memory_region(arena_, kArenaBytes);
#endif
    dirty_all_ = false;
    used_ = 0;
    count_ = 0;
  }

  /// @throws Error when a byte beside a variable was written, or the variables are too large
  void end_block() {
    std::size_t total = 0;
    for (int i = 0; i < count_; ++i) total += variables_[i].bytes;
    if (total > kMaxBytes) {
      throw Error(Place{variables_[0].file, variables_[0].line}.text() + ": " +
                  std::to_string(total) + " bytes of shared memory, a block has 232448");
    }
#ifndef ESP_SIMULATOR_ASAN
    for (int i = 0; i < count_; ++i) {
      const Variable& v = variables_[i];
      const std::size_t next = i + 1 < count_ ? variables_[i + 1].offset : used_ + kRedZone;
      for (std::size_t at = i == 0 ? 0 : v.offset - kRedZone; at < next; ++at) {
        if ((at < v.offset || at >= v.offset + v.bytes) && arena_[at] != std::byte{0xff}) {
          dirty_all_ = true;
          throw Error(Place{v.file, v.line}.text() + ": a write beside shared variable '" + v.name +
                      "', " + std::to_string(std::ptrdiff_t(at) - std::ptrdiff_t(v.offset)) +
                      " bytes from its begin (it has " + std::to_string(v.bytes) + ")");
        }
      }
    }
#endif
  }

 private:
  struct Variable {
    const void* key;
    std::size_t offset, bytes;
    const char* name;
    const char* file;
    int line;
  };
  static constexpr int kMaxVariables = 64;
  static constexpr std::size_t kArenaBytes = 512 << 10;
  alignas(1024) std::byte arena_[kArenaBytes];
  Variable variables_[kMaxVariables];
  int count_ = 0;
  std::size_t used_ = 0;
  bool dirty_all_ = true;
};

inline SharedMemory g_shared;

}  // namespace espalier::simulator
