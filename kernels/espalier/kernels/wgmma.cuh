// SPDX-License-Identifier: Apache-2.0
// Asynchronous matrix products of a warpgroup (4 warps, 128 threads) on sm_90a: d += a b with a
// [64, 16] and b [16, 256] in shared memory and d [64, 256] in f32 registers. Thread t of the group
// holds (PTX ISA, "Register Fragments and Shared Memory Matrix Layouts", wgmma .m64nNk16), with
// row = t / 32 * 16 + t % 32 / 4:
//   d[4j], d[4j + 1]      (row, 8j + 2 (t % 4)..)
//   d[4j + 2], d[4j + 3]  (row + 8, 8j + 2 (t % 4)..)
// Operands lie in boxes as tma.cuh lays them, in either order: k along the rows of a box
// ("K-major": box rows are rows of a or columns of b), or across them (box rows are k).
#pragma once

#include <espalier/kernels/mbarrier.cuh>

// The instructions here, setmaxnreg and tensormap.replace are of sm_90a alone (sm_90 has none).
#if defined(__CUDA_ARCH_FEAT_SM90_ALL) || !defined(__CUDACC__)
#define ESP_HAS_SM90A 1
#else
#define ESP_HAS_SM90A 0
#endif

namespace espalier::kernels {

inline constexpr int kWarpgroup = 128;
inline constexpr int kWgmmaRows = 64, kWgmmaColumns = 256, kWgmmaDepth = 16;
inline constexpr int kBoxRowBytes = 128;

/// The matrix descriptor of the first 16 k of an operand. `boxes` is aligned to 1024 bytes.
/// K-major: one box, with a row for each of the operand's. Otherwise: boxes of 64 of the operand's
/// rows (or columns), one behind the other, each with `box_rows` rows of k.
template <bool kKMajor>
__device__ __forceinline__ std::uint64_t wgmma_operand(const void* boxes, int box_rows) {
  constexpr std::uint64_t kSwizzle128 = std::uint64_t{1} << 62;
  constexpr std::uint64_t kEightRows = 8 * kBoxRowBytes;  // from 8 rows of a box to the next 8
  const std::uint64_t next_box = kKMajor ? 16 : box_rows * kBoxRowBytes;  // K-major: not used
  return kSwizzle128 | kEightRows >> 4 << 32 | next_box >> 4 << 16 |
         (shared_address(boxes) & 0x3ffff) >> 4;
}
/// The same operand from the `depth`-th k on, a multiple of 16 within its boxes.
template <bool kKMajor>
__device__ __forceinline__ std::uint64_t wgmma_advance(std::uint64_t operand, int depth) {
  return operand + (depth * (kKMajor ? 2 : kBoxRowBytes) >> 4);
}

/// Closes the group of the products started since the last one.
__device__ __forceinline__ void wgmma_commit() {
  ESP_PTX(wgmma_commit(), "wgmma.commit_group.sync.aligned;\n" ::: "memory");
}
/// Waits until at most the kLeft newest groups are under way.
template <int kLeft>
__device__ __forceinline__ void wgmma_wait() {
  ESP_PTX(wgmma_wait(kLeft), "wgmma.wait_group.sync.aligned %0;\n" ::"n"(kLeft) : "memory");
}

#ifdef __CUDACC__
#define ESP_8(i)                                                                              \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define ESP_32(i) ESP_8(i), ESP_8(i + 8), ESP_8(i + 16), ESP_8(i + 24)
#define ESP_128 ESP_32(0), ESP_32(32), ESP_32(64), ESP_32(96)
#endif

/// Before the first product, and again after the registers of d were read or written.
__device__ __forceinline__ void wgmma_fence(float (&d)[kWgmmaColumns / 2]) {
  ESP_PTX(wgmma_fence(d), "wgmma.fence.sync.aligned;\n" : ESP_128::"memory");
}
/// Waits for all products, after which d may be read.
__device__ __forceinline__ void wgmma_finish(float (&d)[kWgmmaColumns / 2]) {
  ESP_PTX(wgmma_finish(d), "wgmma.wait_group.sync.aligned 0;\n" : ESP_128::"memory");
}

/// Gives registers back to the multiprocessor, or takes them; for whole warpgroups.
template <int kRegisters>
__device__ __forceinline__ void keep_registers() {
#ifdef __CUDACC__
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
#endif
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
#ifdef __CUDACC__
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;\n" ::"n"(kRegisters));
#endif
}

#ifdef __CUDACC__
#define ESP_TEN(t)                                                                       \
  "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7, %" #t \
  "8, "                                                                                  \
  "%" #t "9, "
#define ESP_WGMMA(type) \
  asm volatile("wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type " {" ESP_TEN()       \
                   ESP_TEN(1) ESP_TEN(2) ESP_TEN(3) ESP_TEN(4) ESP_TEN(5) ESP_TEN(6) ESP_TEN(7)  \
                       ESP_TEN(8) ESP_TEN(9) ESP_TEN(10) ESP_TEN(11)                             \
               "%120, %121, %122, %123, %124, %125, %126, %127}, %128, %129, 1, 1, 1, %130, "    \
               "%131;\n"                                                                         \
               : ESP_128                                 \
               : "l"(a), "l"(b), "n"(!kKMajorA), "n"(!kKMajorB))
#endif

/// Starts d += a b for T __nv_bfloat16 or __half; a, b from wgmma_operand.
template <class T, bool kKMajorA, bool kKMajorB>
__device__ __forceinline__ void wgmma(float (&d)[kWgmmaColumns / 2], std::uint64_t a,
                                      std::uint64_t b) {
  static_assert(std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>,
                "wgmma: bf16 or f16");
#ifdef __CUDACC__
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    ESP_WGMMA("bf16");
  } else {
    ESP_WGMMA("f16");
  }
#else
  simulator::wgmma<T, kKMajorA, kKMajorB>(d, a, b);
#endif
}

#ifdef __CUDACC__
#undef ESP_TEN
#undef ESP_8
#undef ESP_32
#undef ESP_128
#undef ESP_WGMMA
#endif

}  // namespace espalier::kernels
