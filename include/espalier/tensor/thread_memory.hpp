// SPDX-License-Identifier: Apache-2.0
// Scratch memory per thread of a parallel loop. It is allocated before the loop for all threads, so
// the pool's use does not depend on the scheduling.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include <espalier/core/threads.hpp>
#include <espalier/tensor/storage.hpp>

namespace espalier {

/// `count` uninitialised elements for every thread of the loops that follow.
template <class T>
class ThreadMemory {
 public:
  ThreadMemory() = default;
  explicit ThreadMemory(std::int64_t count)
      : stride_((static_cast<std::size_t>(count) * sizeof(T) + kLine - 1) / kLine * kLine),
        memory_(allocate_bytes(
            stride_ * static_cast<std::size_t>(std::max(num_threads(), thread_number() + 1)))) {}

  T* mine() const {
    return reinterpret_cast<T*>(memory_.get() +
                                stride_ * static_cast<std::size_t>(thread_number()));
  }

 private:
  static constexpr std::size_t kLine = 64;  // cache line: threads share none

  std::size_t stride_ = 0;
  std::shared_ptr<std::byte> memory_;
};

}  // namespace espalier
