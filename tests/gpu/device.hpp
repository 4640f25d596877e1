// SPDX-License-Identifier: Apache-2.0
// Takes the simulator's place where the kernel tests run on a GPU (force-included before them).
// Arrays lie in pinned host memory, which both sides see under one address (ESPALIER_MANAGED=1: in
// managed memory), and launches wait; a "schedule" is one more run, whose bytes must not differ:
// ESPALIER_RUNS of them, or three.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <new>
#include <vector>

#define ESP_ON_GPU 1

namespace espalier::simulator {

// Read by the first call of the runtime, which comes after this.
inline const int g_launches_wait = setenv("CUDA_LAUNCH_BLOCKING", "1", 1);

enum class Schedule { forward, again };

template <class F>
void for_each_schedule(F&& f) {
  static const int runs = [] {
    const char* text = std::getenv("ESPALIER_RUNS");
    return text == nullptr ? 3 : std::atoi(text);
  }();
  f(Schedule::forward);
  for (int run = 1; run < runs; ++run) f(Schedule::again);
}

/// Here all blocks run: there is time for them.
struct OnlyLastBlock {
  OnlyLastBlock() {}
  ~OnlyLastBlock() {}
};

}  // namespace espalier::simulator

namespace espalier::test {

/// Blocks in sizes of powers of two. They are kept: to pin takes its time.
class SharedBlocks {
 public:
  static SharedBlocks& instance() {
    static SharedBlocks* blocks = new SharedBlocks;  // never destroyed, like the runtime under it
    return *blocks;
  }

  void* allocate(std::size_t bytes) {
    std::vector<void*>& free = free_[std::bit_ceil(bytes)];
    if (free.empty()) {
      void* p = nullptr;
      const std::size_t size = std::bit_ceil(bytes);
      const cudaError_t error = managed_ ? cudaMallocManaged(&p, size) : cudaMallocHost(&p, size);
      if (error != cudaSuccess) throw std::bad_alloc();
      return p;
    }
    void* p = free.back();
    free.pop_back();
    return p;
  }
  void release(void* p, std::size_t bytes) { free_[std::bit_ceil(bytes)].push_back(p); }

 private:
  const bool managed_ = std::getenv("ESPALIER_MANAGED") != nullptr;
  std::map<std::size_t, std::vector<void*>> free_;
};

template <class T>
struct DeviceAllocator {
  using value_type = T;
  DeviceAllocator() = default;
  template <class U>
  DeviceAllocator(const DeviceAllocator<U>&) {}

  T* allocate(std::size_t n) {
    return static_cast<T*>(SharedBlocks::instance().allocate(n * sizeof(T)));
  }
  void deallocate(T* p, std::size_t n) { SharedBlocks::instance().release(p, n * sizeof(T)); }
  friend bool operator==(const DeviceAllocator&, const DeviceAllocator&) { return true; }
};

}  // namespace espalier::test
