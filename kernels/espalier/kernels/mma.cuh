// SPDX-License-Identifier: Apache-2.0
// Tensor-core building blocks of sm_80 and later, one instruction per function: D = A B + C on
// tiles 16 x 8 x 16 (A row-major [16, 16], B [16, 8] given as its columns, C and D [16, 8] in f32),
// 8 x 8 tiles of 2-byte elements from shared memory to fragments, and copies that run behind the
// threads. Fragments of a lane (PTX ISA, "Matrix Fragments for mma.m16n8k16"), g = lane / 4, q =
// lane % 4:
//   A: a[0] (g, 2q..)  a[1] (g + 8, 2q..)  a[2] (g, 2q + 8..)  a[3] (g + 8, 2q + 8..)   two each
//   B: b[0] (k = 2q.., n = g)              b[1] (k = 2q + 8.., n = g)                   two each
//   C: c[0], c[1] (g, 2q..)                c[2], c[3] (g + 8, 2q..)
#pragma once

#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

/// d += a b; T is __nv_bfloat16 or __half, two to a register, the lower column or row in the low
/// half.
template <class T>
__device__ __forceinline__ void mma_m16n8k16(float (&d)[4], const unsigned (&a)[4],
                                             const unsigned (&b)[2]) {
#ifdef __CUDACC__
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    static_assert(std::is_same_v<T, __half>, "mma_m16n8k16: bf16 or f16");
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};\n"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
#else
  simulator::mma_m16n8k16<T>(d, a, b);
#endif
}

/// Two neighbours of a fragment, rounded to nearest even.
template <class T>
__device__ __forceinline__ unsigned pair_of(float low, float high) {
  unsigned pair;
#ifdef __CUDACC__
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
  } else {
    static_assert(std::is_same_v<T, __half>, "pair_of: bf16 or f16");
    asm("cvt.rn.f16x2.f32 %0, %1, %2;\n" : "=r"(pair) : "f"(high), "f"(low));
  }
#else
  pair = simulator::pair_of(from_float<T>(low), from_float<T>(high));
#endif
  return pair;
}

/// kTiles (1, 2, 4) tiles of 8 x 8; lane 8 t + r gives the address of row r of tile t, 16 bytes
/// aligned to 16. Lane l gets of each tile columns 2 (l % 4).. of row l / 4; with kTransposed of
/// the tile's transpose. Every lane's address must be readable, also those that name no tile.
template <int kTiles, bool kTransposed = false>
__device__ __forceinline__ void ldmatrix(unsigned (&r)[kTiles], const void* row) {
  static_assert(kTiles == 1 || kTiles == 2 || kTiles == 4, "ldmatrix: 1, 2 or 4 tiles");
#ifdef __CUDACC__
  const unsigned at = shared_address(row);
  if constexpr (kTiles == 1 && !kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];\n"
                 : "=r"(r[0])
                 : "r"(at)
                 : "memory");
  } else if constexpr (kTiles == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];\n"
                 : "=r"(r[0])
                 : "r"(at)
                 : "memory");
  } else if constexpr (kTiles == 2 && !kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(at)
                 : "memory");
  } else if constexpr (kTiles == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];\n"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(at)
                 : "memory");
  } else if constexpr (!kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];\n"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
  }
#else
  simulator::load_tiles<kTiles, kTransposed>(r, row);
#endif
}

/// Starts a copy of kBytes (4 or 16), of which `valid` (0 or more) come from global memory and the
/// rest are zero. `to` is in shared memory; both are aligned to kBytes. It has landed after
/// cp_async_wait and, for other threads, a barrier behind it.
template <int kBytes>
__device__ __forceinline__ void cp_async(void* to, const void* from, int valid = kBytes) {
  static_assert(kBytes == 4 || kBytes == 16, "cp_async: 4 or 16 bytes");
  if constexpr (kBytes == 16) {
    ESP_PTX(async_copy(to, from, 16, static_cast<unsigned>(valid)),
            "cp.async.cg.shared.global [%0], [%1], 16, %2;\n" ::"r"(shared_address(to)), "l"(from),
            "r"(valid)
            : "memory");
  } else {
    ESP_PTX(async_copy(to, from, 4, static_cast<unsigned>(valid)),
            "cp.async.ca.shared.global [%0], [%1], 4, %2;\n" ::"r"(shared_address(to)), "l"(from),
            "r"(valid)
            : "memory");
  }
}

/// Closes the group of the copies started since the last one.
__device__ __forceinline__ void cp_async_commit() {
  ESP_PTX(async_commit(), "cp.async.commit_group;\n" ::: "memory");
}

/// Waits until at most the kLeft newest groups of this thread are under way.
template <int kLeft>
__device__ __forceinline__ void cp_async_wait() {
  ESP_PTX(async_wait(kLeft), "cp.async.wait_group %0;\n" ::"n"(kLeft) : "memory");
}

}  // namespace espalier::kernels
