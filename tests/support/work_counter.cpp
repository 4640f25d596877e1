// SPDX-License-Identifier: Apache-2.0
// The counters of work_counter.hpp. This file itself is compiled without them.
#include "support/work_counter.hpp"

#include <malloc.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <new>

namespace {
std::atomic<std::uint64_t> blocks{0};
std::atomic<std::size_t> live_bytes{0}, peak_bytes{0}, base_bytes{0};

void* counted(std::size_t bytes) {
  void* p = std::malloc(bytes);
  if (p == nullptr) throw std::bad_alloc();
  const std::size_t now = live_bytes += malloc_usable_size(p);
  if (now > peak_bytes) peak_bytes = now;
  return p;
}
void uncounted(void* p) noexcept {
  if (p != nullptr) live_bytes -= malloc_usable_size(p);
  std::free(p);
}
}  // namespace

extern "C" void __sanitizer_cov_trace_pc();
extern "C" void __sanitizer_cov_trace_pc() {
  blocks.fetch_add(1, std::memory_order_relaxed);
}

void* operator new(std::size_t bytes) {
  return counted(bytes);
}
void* operator new[](std::size_t bytes) {
  return counted(bytes);
}
void operator delete(void* p) noexcept {
  uncounted(p);
}
void operator delete[](void* p) noexcept {
  uncounted(p);
}
void operator delete(void* p, std::size_t) noexcept {
  uncounted(p);
}
void operator delete[](void* p, std::size_t) noexcept {
  uncounted(p);
}

namespace espalier::test {

Work work_so_far() {
  return {blocks, peak_bytes - base_bytes};
}
void restart_peak() {
  base_bytes = live_bytes.load();
  peak_bytes = live_bytes.load();
}

}  // namespace espalier::test
