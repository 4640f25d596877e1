// SPDX-License-Identifier: Apache-2.0
// Fibers of the kernel simulator: one per CUDA thread, all on one operating system thread, so that
// a run is repeatable. AddressSanitizer and ThreadSanitizer are told of every switch; TSan sees
// each fiber as a thread of its own and no order between them but what a barrier gives.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define ESP_SIMULATOR_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define ESP_SIMULATOR_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ESP_SIMULATOR_ASAN 1
#elif __has_feature(thread_sanitizer)
#define ESP_SIMULATOR_TSAN 1
#endif
#endif

#ifdef ESP_SIMULATOR_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef ESP_SIMULATOR_TSAN
#include <sanitizer/tsan_interface.h>
extern "C" {
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
}
#endif
#ifndef __x86_64__
#include <ucontext.h>
#endif

// The simulator's own state is shared by all fibers on purpose: the sanitizers must not look at it.
// ESP_SIMULATOR_SCHEDULER hides what the scheduler does for every switch, and lets it be inlined.
#ifdef __clang__
#define ESP_SIMULATOR_SCHEDULER __attribute__((no_sanitize("address", "thread")))
#else
#define ESP_SIMULATOR_SCHEDULER \
  __attribute__((no_sanitize_thread, no_sanitize_address, no_sanitize_undefined))
#endif
#define ESP_SIMULATOR_RAW __attribute__((noinline)) ESP_SIMULATOR_SCHEDULER

namespace espalier::simulator {

#ifdef ESP_SIMULATOR_ASAN
inline constexpr std::size_t kStackBytes = 512 << 10;  // red zones make frames several times larger
#else
inline constexpr std::size_t kStackBytes = 128 << 10;
#endif
inline constexpr std::size_t kGuardBytes = 64 << 10;  // below each stack: an overflow faults

struct Fiber {
  std::byte* stack = nullptr;
  void* fake_stack = nullptr;  // of ASan, kept for the next block: it costs megabytes to make
  void* tsan = nullptr;
  void (*body)(void*) = nullptr;
  void* argument = nullptr;
#ifdef __x86_64__
  void* sp = nullptr;
#else
  ucontext_t context;
#endif
};

/// Where the scheduler runs: the stack that called launch().
struct MainContext {
  Fiber self;
  Fiber* running = nullptr;
  const void* stack_bottom = nullptr;
  std::size_t stack_bytes = 0;
};
inline MainContext g_main;

#ifdef __x86_64__
// Saves what the ABI wants kept, swaps stacks, restores.
__attribute__((naked, noinline)) inline void switch_stack(void** /*save*/, void* /*load*/) {
  asm("pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n"
      "movq %rsp, (%rdi)\n movq %rsi, %rsp\n"
      "popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret");
}
#endif

ESP_SIMULATOR_RAW inline void swap_contexts(Fiber& from, Fiber& to) {
#ifdef __x86_64__
  switch_stack(&from.sp, to.sp);
#else
  swapcontext(&from.context, &to.context);
#endif
}

/// From a fiber back to the scheduler.
ESP_SIMULATOR_RAW inline void leave_fiber() {
  Fiber& fiber = *g_main.running;
#ifdef ESP_SIMULATOR_ASAN
  __sanitizer_start_switch_fiber(&fiber.fake_stack, g_main.stack_bottom, g_main.stack_bytes);
#endif
#ifdef ESP_SIMULATOR_TSAN
  __tsan_switch_to_fiber(g_main.self.tsan, __tsan_switch_to_fiber_no_sync);
#endif
  swap_contexts(fiber, g_main.self);
#ifdef ESP_SIMULATOR_ASAN
  __sanitizer_finish_switch_fiber(fiber.fake_stack, nullptr, nullptr);
#endif
}

ESP_SIMULATOR_RAW inline void enter_fiber(Fiber& fiber) {
  g_main.running = &fiber;
#ifdef ESP_SIMULATOR_ASAN
  __sanitizer_start_switch_fiber(&g_main.self.fake_stack, fiber.stack, kStackBytes);
#endif
#ifdef ESP_SIMULATOR_TSAN
  g_main.self.tsan = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync);
#endif
  swap_contexts(g_main.self, fiber);
#ifdef ESP_SIMULATOR_ASAN
  __sanitizer_finish_switch_fiber(g_main.self.fake_stack, nullptr, nullptr);
#endif
}

ESP_SIMULATOR_RAW inline void fiber_main() {
  Fiber& fiber = *g_main.running;
#ifdef ESP_SIMULATOR_ASAN
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &g_main.stack_bottom, &g_main.stack_bytes);
#endif
  fiber.body(fiber.argument);
  leave_fiber();
  __builtin_trap();
}

/// Makes `fiber` ready to run body(argument) from the beginning. Stacks are kept for ever.
inline void prepare_fiber(Fiber& fiber, void (*body)(void*), void* argument) {
  fiber.body = body;
  fiber.argument = argument;
  if (fiber.stack == nullptr) {
    void* memory = mmap(nullptr, kStackBytes + kGuardBytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    mprotect(memory, kGuardBytes, PROT_NONE);
    fiber.stack = static_cast<std::byte*>(memory) + kGuardBytes;
  }
#ifdef ESP_SIMULATOR_TSAN
  if (fiber.tsan == nullptr) fiber.tsan = __tsan_create_fiber(0);
#endif
#ifdef __x86_64__
  // Six registers for switch_stack to pop, the address it returns to, and a null return address.
  auto** top = reinterpret_cast<void**>(fiber.stack + kStackBytes) - 8;
  std::memset(static_cast<void*>(top), 0, 8 * sizeof(void*));
  top[6] = reinterpret_cast<void*>(&fiber_main);
  fiber.sp = top;
#else
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
#endif
}

/// Happens-before edges for TSan; nothing otherwise.
inline void publish([[maybe_unused]] void* key) {
#ifdef ESP_SIMULATOR_TSAN
  __tsan_release(key);
#endif
}
inline void observe([[maybe_unused]] void* key) {
#ifdef ESP_SIMULATOR_TSAN
  __tsan_acquire(key);
#endif
}

/// Forgets the frames of a fiber that will not be resumed; what it did comes before `key`.
ESP_SIMULATOR_RAW inline void retire_fiber([[maybe_unused]] Fiber& fiber,
                                           [[maybe_unused]] void* key) {
#ifdef ESP_SIMULATOR_ASAN
  __asan_unpoison_memory_region(fiber.stack, kStackBytes);
  fiber.fake_stack = nullptr;
#endif
#ifdef ESP_SIMULATOR_TSAN
  __tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync);
  __tsan_release(key);
  __tsan_switch_to_fiber(g_main.self.tsan, __tsan_switch_to_fiber_no_sync);
  __tsan_destroy_fiber(fiber.tsan);
  fiber.tsan = nullptr;
#endif
}

/// While one lives, TSan ignores what the scheduler's own context reads and writes.
struct Unobserved {
  Unobserved() {
#ifdef ESP_SIMULATOR_TSAN
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
#endif
  }
  ~Unobserved() {
#ifdef ESP_SIMULATOR_TSAN
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
#endif
  }
  Unobserved(const Unobserved&) = delete;
  Unobserved& operator=(const Unobserved&) = delete;
};

}  // namespace espalier::simulator
