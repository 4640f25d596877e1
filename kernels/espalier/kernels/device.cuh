// SPDX-License-Identifier: Apache-2.0
// What every kernel here builds on: element types computed in float, 16-byte vectors, sums over
// warps and blocks in a fixed order, and macros that are plain CUDA under nvcc (the tests define
// them otherwise, and run the same sources on the CPU). ESP_PTX(call, text : results : inputs :
// clobbers) is one instruction, or the call of the simulator that stands for it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <espalier/kernels/runtime.hpp>
#include <type_traits>

#ifdef __CUDACC__
#define ESP_SHARED(type, name) __shared__ std::type_identity_t<type> name
#define ESP_DYN_SHARED(type, name)                                 \
  extern __shared__ __align__(128) unsigned char esp_dyn_shared[]; \
  type* name = reinterpret_cast<type*>(esp_dyn_shared)
#define ESP_LAUNCH(kernel, ...) ::espalier::kernels::launch(kernel, __VA_ARGS__)
#define ESP_PTX(simulated, ...) asm volatile(__VA_ARGS__)
#elif !defined(ESP_LAUNCH)
#error "kernels are compiled by nvcc; the CPU runs them through the simulator of tests/support"
#else
#define ESP_PTX(simulated, ...) ::espalier::simulator::simulated
#endif

namespace espalier::kernels {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffffffffu;

template <class T>
__host__ __device__ __forceinline__ float to_float(T v) {
  static_assert(
      std::is_same_v<T, float> || std::is_same_v<T, __nv_bfloat16> || std::is_same_v<T, __half>,
      "element types of kernels are float, __nv_bfloat16 and __half");
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __bfloat162float(v);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __half2float(v);
  } else {
    return v;
  }
}

/// Rounds to nearest even.
template <class T>
__host__ __device__ __forceinline__ T from_float(float v) {
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(v);
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(v);
  } else {
    return v;
  }
}

/// N elements that move as one: `*reinterpret_cast<Vector<T, N>*>(p)` needs p aligned to all of
/// them.
template <class T, int N>
struct alignas(sizeof(T) * N) Vector {
  T v[N];
};

/// How many elements a 16-byte access holds.
template <class T>
inline constexpr int kPerVector = 16 / sizeof(T);

template <class T, int N>
__device__ __forceinline__ Vector<T, N> load(const T* p) {
  return *reinterpret_cast<const Vector<T, N>*>(p);
}
template <class T, int N>
__device__ __forceinline__ void store(T* p, const Vector<T, N>& v) {
  *reinterpret_cast<Vector<T, N>*>(p) = v;
}

/// Whether rows of `h` elements that begin at these pointers can be read 16 bytes at a time.
template <class T, class... Pointers>
inline bool rows_are_aligned(std::int64_t h, const Pointers*... p) {
  return h % kPerVector<T> == 0 && ((reinterpret_cast<std::uintptr_t>(p) % 16 == 0) && ...);
}

struct Plus {
  template <class T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};
/// NaN only where both are.
struct Larger {
  __device__ __forceinline__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

/// Combines the values of the `kLanes` neighbours a lane has, the same bits in each; all 32 lanes
/// must come.
template <int kLanes, class Combine, class T>
__device__ __forceinline__ T combine_lanes(T v) {
#pragma unroll
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) {
    v = Combine()(v, __shfl_xor_sync(kAllLanes, v, lanes));
  }
  return v;
}
template <int kLanes = kWarp, class T>
__device__ __forceinline__ T warp_sum(T v) {
  return combine_lanes<kLanes, Plus>(v);
}
template <int kLanes = kWarp>
__device__ __forceinline__ float warp_max(float v) {
  return combine_lanes<kLanes, Larger>(v);
}

/// Combines `first` and, warp by warp, the values of a one-dimensional block of whole warps, the
/// same bits in each thread; `v` is a warp's. A block of one warp has `v`.
template <class Combine, class T>
__device__ __forceinline__ T combine_warps(T v, T first) {
  ESP_SHARED(T[kWarp], of_warp);
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
  if (warps == 1) return v;
  __syncthreads();  // a result before this one may still be read
  if (threadIdx.x % kWarp == 0) of_warp[warp] = v;
  __syncthreads();
  for (int w = 0; w < warps; ++w) first = Combine()(first, of_warp[w]);
  return first;
}
template <class T>
__device__ __forceinline__ T block_sum(T v) {
  return combine_warps<Plus>(warp_sum(v), T(0));
}
__device__ __forceinline__ float block_max(float v) {
  v = warp_max(v);
  return combine_warps<Larger>(v, v);
}

#ifdef __CUDACC__
/// Of what lies in shared memory, as instructions take it.
__device__ __forceinline__ unsigned shared_address(const void* p) {
  return static_cast<unsigned>(__cvta_generic_to_shared(p));
}
#else
using simulator::shared_address;
#endif

template <class I>
__host__ __device__ constexpr I ceil_div(I a, I b) {
  return (a + b - 1) / b;
}

#ifdef __CUDACC__
/// kernel<<<grid, block, shared_bytes, stream>>>(arguments...), and whether it was accepted.
template <class... P, class... A>
cudaError_t launch(void (*kernel)(P...), dim3 grid, dim3 block, std::size_t shared_bytes,
                   cudaStream_t stream, A... arguments) {
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<P>(arguments)...);
  return cudaGetLastError();
}
#endif

}  // namespace espalier::kernels
