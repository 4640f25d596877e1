// SPDX-License-Identifier: Apache-2.0
// The transaction barrier of sm_90 in shared memory. A phase ends when `arrivals` arrivals have
// come and all bytes announced in it have been copied; then the next one begins. Waiting for parity
// p waits until a phase of parity p is over: phase 0 first, and of a fresh barrier "the phase
// before", of parity 1, is over.
#pragma once

#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

#ifdef __CUDACC__
__device__ __forceinline__ unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
#else
using simulator::shared_address;
#endif

struct Mbarrier {
  std::uint64_t state;

  /// By one thread; others may use it after fence_proxy_async() by that thread and a barrier.
  __device__ __forceinline__ void init(unsigned arrivals) {
#ifdef __CUDACC__
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(this)),
                 "r"(arrivals)
                 : "memory");
#else
    simulator::mbarrier_init(this, arrivals);
#endif
  }

  __device__ __forceinline__ void arrive() {
#ifdef __CUDACC__
    asm volatile(
        "mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(this))
        : "memory");
#else
    simulator::mbarrier_arrive(this, 0);
#endif
  }

  /// Arrives and announces copies of `bytes` in all.
  __device__ __forceinline__ void arrive_and_expect(unsigned bytes) {
#ifdef __CUDACC__
    asm volatile("mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;\n" ::"r"(
                     shared_address(this)),
                 "r"(bytes)
                 : "memory");
#else
    simulator::mbarrier_arrive(this, bytes);
#endif
  }

  __device__ __forceinline__ void wait(unsigned parity) {
#ifdef __CUDACC__
    unsigned over;
    do {  // try_wait sleeps in hardware for a while
      asm volatile(
          "{\n"
          ".reg .pred over;\n"
          "mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 over, [%1], %2;\n"
          "selp.u32 %0, 1, 0, over;\n"
          "}\n"
          : "=r"(over)
          : "r"(shared_address(this)), "r"(parity)
          : "memory");
    } while (over == 0);
#else
    simulator::mbarrier_wait(this, parity);
#endif
  }
};

/// What this thread wrote to shared memory, barriers too, is seen by TMA and by wgmma.
__device__ __forceinline__ void fence_proxy_async() {
#ifdef __CUDACC__
  asm volatile("fence.proxy.async.shared::cta;\n" ::: "memory");
#else
  simulator::fence_proxy_async();
#endif
}

}  // namespace espalier::kernels
