// SPDX-License-Identifier: Apache-2.0
// Memory of tensors: a caching pool. Blocks are 64-byte aligned and rounded up to one of eight
// sizes per power of two. Freed blocks are kept for reuse, so training stops allocating from the
// system after its first steps. A block may serve a request that is up to a third smaller, because
// the size of an expert's tensors varies with its tokens. `pool_stats()` reports the pool's use.
// `Memory` is the interface of a device for layers that do not know the device's type.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include <espalier/core/device.hpp>
#include <espalier/core/dtype.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/core/mutex.hpp>

namespace espalier {

struct PoolStats {
  std::size_t in_use_bytes = 0;
  std::size_t peak_bytes = 0;    // largest in_use_bytes so far, or since reset_pool_peak()
  std::size_t cached_bytes = 0;  // freed, waiting for reuse
  std::size_t system_allocations = 0;
};

namespace detail {

class CpuPool {
 public:
  static constexpr std::size_t kAlignment = 64;

  /// Never destroyed: tensors in static storage may be freed after any other static object.
  static CpuPool& instance() {
    static CpuPool* pool = new CpuPool;
    return *pool;
  }

  static std::size_t rounded(std::size_t bytes) {
    if (bytes <= 512) return (std::max<std::size_t>(bytes, 1) + 63) / 64 * 64;
    if (bytes > std::size_t{1} << 62) throw std::bad_alloc();
    const std::size_t step = std::bit_floor(bytes - 1) / 8;
    return (bytes + step - 1) / step * step;
  }

  struct Block {
    void* at;
    std::size_t size;  // rounded
  };

  /// At least `size` bytes, a rounded number.
  ESP_INLINE Block allocate(std::size_t size) {
    const Lock lock(mutex_);
    Block block{nullptr, size};
    for (std::size_t held = size; held <= size + size / 2; held = rounded(held + 1)) {
      auto& bin = free_[bin_of(held)];
      if (bin.empty()) continue;
      block = {bin.back(), held};
      bin.pop_back();
      stats_.cached_bytes -= held;
      break;
    }
    if (block.at == nullptr) {
      block.at = ::operator new (size, std::align_val_t{kAlignment});
      ++stats_.system_allocations;
    }
    stats_.in_use_bytes += block.size;
    stats_.peak_bytes = std::max(stats_.peak_bytes, stats_.in_use_bytes);
    return block;
  }

  ESP_INLINE void release(const Block& block) noexcept {
    const Lock lock(mutex_);
    stats_.in_use_bytes -= block.size;
    try {
      free_[bin_of(block.size)].push_back(block.at);
      stats_.cached_bytes += block.size;
    } catch (...) {
      ::operator delete (block.at, std::align_val_t{kAlignment});
    }
  }

  /// Releases every cached block to the system.
  void trim() {
    const Lock lock(mutex_);
    for (auto& bin : free_) {
      for (void* block : bin) ::operator delete (block, std::align_val_t{kAlignment});
      bin.clear();
    }
    stats_.cached_bytes = 0;
  }

  PoolStats stats() {
    const Lock lock(mutex_);
    return stats_;
  }
  void reset_peak() {
    const Lock lock(mutex_);
    stats_.peak_bytes = stats_.in_use_bytes;
  }

 private:
  /// The index of a rounded size in `free_`.
  static std::size_t bin_of(std::size_t size) {
    if (size <= 512) return size / 64 - 1;
    const auto power = static_cast<std::size_t>(std::bit_width(size - 1)) - 1;  // 9 or more
    return 8 * (power - 8) + ((size - 1) >> (power - 3)) - 8;
  }

  Mutex mutex_;
  std::array<std::vector<void*>, 8 * 54> free_;  // by size
  PoolStats stats_;
};

}  // namespace detail

[[nodiscard]] inline PoolStats pool_stats() {
  return detail::CpuPool::instance().stats();
}
inline void reset_pool_peak() {
  detail::CpuPool::instance().reset_peak();
}
/// Releases the cached memory to the system.
inline void trim_pool() {
  detail::CpuPool::instance().trim();
}

/// Uninitialised host memory of `bytes` bytes from the pool.
[[nodiscard]] ESP_INLINE std::shared_ptr<std::byte> allocate_bytes(std::size_t bytes) {
  auto& pool = detail::CpuPool::instance();
  const auto block = pool.allocate(detail::CpuPool::rounded(bytes));
  return {static_cast<std::byte*>(block.at),
          [block](std::byte*) { detail::CpuPool::instance().release(block); }};
}

struct AdamWStep;  // ops/adamw_step.hpp

/// The operations on a device's memory, for code that does not know the device at compile time.
struct Memory {
  const char* device;
  bool on_host;  // may be dereferenced here
  std::shared_ptr<std::byte> (*allocate)(std::size_t bytes);
  void (*copy)(std::byte* to, const std::byte* from, std::size_t bytes);        // within the device
  void (*upload)(std::byte* to, const std::byte* host, std::size_t bytes);      // host -> device
  void (*download)(std::byte* host, const std::byte* from, std::size_t bytes);  // waits for it

  // Null on the host, where their callers have host loops.
  void (*add)(DType dtype, std::byte* to, const std::byte* a, const std::byte* b,
              std::int64_t n) = nullptr;
  double (*sum_of_squares)(const float* x, std::int64_t n) = nullptr;
  void (*adamw)(float* p, float* m, float* v, const float* grad, std::int64_t n,
                const AdamWStep& step) = nullptr;
};

namespace detail {
inline void copy_host(std::byte* to, const std::byte* from, std::size_t bytes) {
  if (bytes > 0) std::memcpy(to, from, bytes);
}
inline constexpr Memory kHostMemory = {"cpu",     true,      allocate_bytes,
                                       copy_host, copy_host, copy_host};
}  // namespace detail

/// Specialised for each device, where it is defined.
template <Device D>
const Memory& memory_of();
template <>
inline const Memory& memory_of<Cpu>() {
  return detail::kHostMemory;
}

}  // namespace espalier
