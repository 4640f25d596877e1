// SPDX-License-Identifier: Apache-2.0
// The transaction barrier of sm_90 in shared memory. A phase ends when `arrivals` arrivals have
// come and all bytes announced in it have been copied; then the next one begins. Waiting for parity
// p waits until a phase of parity p is over: phase 0 first, and of a fresh barrier "the phase
// before", of parity 1, is over.
#pragma once

#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

struct Mbarrier {
  std::uint64_t state;

  /// By one thread; others may use it after fence_proxy_async() by that thread and a barrier.
  __device__ __forceinline__ void init(unsigned arrivals) {
    ESP_PTX(mbarrier_init(this, arrivals),
            "mbarrier.init.shared::cta.b64 [%0], %1;\n" ::"r"(shared_address(this)), "r"(arrivals)
            : "memory");
  }

  __device__ __forceinline__ void arrive() {
    ESP_PTX(mbarrier_arrive(this, 0),
            "mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];\n" ::"r"(shared_address(this))
            : "memory");
  }

  /// Arrives and announces copies of `bytes` in all.
  __device__ __forceinline__ void arrive_and_expect(unsigned bytes) {
    ESP_PTX(mbarrier_arrive(this, bytes),
            "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;\n" ::"r"(
                shared_address(this)),
            "r"(bytes)
            : "memory");
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
  ESP_PTX(fence_proxy_async(), "fence.proxy.async.shared::cta;\n" ::: "memory");
}

}  // namespace espalier::kernels
