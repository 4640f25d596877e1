// SPDX-License-Identifier: Apache-2.0
// Stands in for the CUDA Toolkit's header of this name when kernels run on the CPU: put this folder
// first in the include path. Only what the project's kernels use is here.
#pragma once

#include <math.h>

#include <bit>
#include <cstring>

#include "hopper.hpp"
#include "tensor_core.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)

#define ESP_SHARED(type, name)                                                     \
  auto& name = ::espalier::simulator::shared_variable<std::type_identity_t<type>>( \
      [] {}, #name, __FILE__, __LINE__)
#define ESP_DYN_SHARED(type, name) \
  type* name = ::espalier::simulator::dynamic_shared<type>(#name, __FILE__, __LINE__)
#define ESP_LAUNCH(kernel, ...) \
  ::espalier::simulator::launch(#kernel, {__FILE__, __LINE__}, kernel, __VA_ARGS__)

// --- vector types --------------------------------------------------------------------------------
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
  return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
  return {x, y, z, w};
}

inline constexpr int warpSize = 32;

// --- barriers and warp collectives ---------------------------------------------------------------
inline void __syncthreads(ESP_SIMULATOR_PLACE) {
  ::espalier::simulator::g_block.barrier(place);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, ESP_SIMULATOR_PLACE) {
  ::espalier::simulator::g_block.warp_barrier(mask, place);
}

template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, ESP_SIMULATOR_PLACE) {
  const int base = static_cast<int>(::espalier::simulator::lane_id()) / width * width;
  return ::espalier::simulator::shuffle("__shfl_sync", mask, value, base + (source & (width - 1)),
                                        place);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, ESP_SIMULATOR_PLACE) {
  const int own = static_cast<int>(::espalier::simulator::lane_id());
  const int source = own ^ lanes;
  const bool keep = source / width > own / width || source >= warpSize;
  return ::espalier::simulator::shuffle("__shfl_xor_sync", mask, value, keep ? -1 : source, place);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32, ESP_SIMULATOR_PLACE) {
  const int own = static_cast<int>(::espalier::simulator::lane_id());
  const bool keep = own % width + static_cast<int>(lanes) >= width;
  return ::espalier::simulator::shuffle("__shfl_down_sync", mask, value,
                                        keep ? -1 : own + static_cast<int>(lanes), place);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32, ESP_SIMULATOR_PLACE) {
  const int own = static_cast<int>(::espalier::simulator::lane_id());
  const bool keep = own % width < static_cast<int>(lanes);
  return ::espalier::simulator::shuffle("__shfl_up_sync", mask, value,
                                        keep ? -1 : own - static_cast<int>(lanes), place);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, ESP_SIMULATOR_PLACE) {
  ::espalier::simulator::Vote v{predicate != 0, 0};
  ::espalier::simulator::collective("__ballot_sync", mask, v, ::espalier::simulator::vote, place);
  return v.result;
}
inline int __any_sync(unsigned mask, int predicate, ESP_SIMULATOR_PLACE) {
  ::espalier::simulator::Vote v{predicate != 0, 0};
  ::espalier::simulator::collective("__any_sync", mask, v, ::espalier::simulator::vote, place);
  return v.result != 0;
}
inline int __all_sync(unsigned mask, int predicate, ESP_SIMULATOR_PLACE) {
  ::espalier::simulator::Vote v{predicate != 0, 0};
  ::espalier::simulator::collective("__all_sync", mask, v, ::espalier::simulator::vote, place);
  return v.result == mask;
}
template <class T>
unsigned __match_any_sync(unsigned mask, T value, ESP_SIMULATOR_PLACE) {
  static_assert(sizeof(T) <= 8);
  ::espalier::simulator::Vote v{0, 0};
  std::memcpy(&v.value, &value, sizeof(T));
  ::espalier::simulator::collective("__match_any_sync", mask, v, ::espalier::simulator::match,
                                    place);
  return v.result;
}

// --- integers, atomics on integers, arithmetic ---------------------------------------------------
inline int __popc(unsigned x) {
  return std::popcount(x);
}
inline int __clz(int x) {
  return std::countl_zero(static_cast<unsigned>(x));
}
inline int __ffs(int x) {
  return x == 0 ? 0 : 1 + std::countr_zero(static_cast<unsigned>(x));
}
template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  static_assert(std::is_integral_v<T>, "no atomics on floats: their order would show in the bits");
  return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
inline float rsqrtf(float x) {
  return 1.0f / sqrtf(x);
}
inline float __expf(float x) {
  return expf(x);
}
inline float __logf(float x) {
  return logf(x);
}
inline float __fdividef(float a, float b) {
  return a / b;
}
inline float __int_as_float(int x) {
  return std::bit_cast<float>(x);
}
inline int __float_as_int(float x) {
  return std::bit_cast<int>(x);
}
inline float __uint_as_float(unsigned x) {
  return std::bit_cast<float>(x);
}
inline unsigned __float_as_uint(float x) {
  return std::bit_cast<unsigned>(x);
}
inline int min(int a, int b) {
  return b < a ? b : a;
}
inline int max(int a, int b) {
  return a < b ? b : a;
}
inline unsigned min(unsigned a, unsigned b) {
  return b < a ? b : a;
}
inline unsigned max(unsigned a, unsigned b) {
  return a < b ? b : a;
}
inline long long min(long long a, long long b) {
  return b < a ? b : a;
}
inline long long max(long long a, long long b) {
  return a < b ? b : a;
}
inline float min(float a, float b) {
  return fminf(a, b);
}
inline float max(float a, float b) {
  return fmaxf(a, b);
}

// --- the few runtime calls that launchers make ---------------------------------------------------
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

inline cudaError_t cudaGetLastError() {
  return std::exchange(::espalier::simulator::g_last_error, cudaSuccess);
}
inline const char* cudaGetErrorString(cudaError_t e) {
  return e == cudaSuccess                     ? "no error"
         : e == cudaErrorInvalidValue         ? "invalid argument"
         : e == cudaErrorInvalidConfiguration ? "invalid configuration argument"
         : e == cudaErrorNotSupported         ? "operation not supported"
                                              : "out of memory";
}
template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute, int bytes) {
  if (bytes > static_cast<int>(::espalier::simulator::SharedMemory::kMaxBytes)) {
    return ::espalier::simulator::g_last_error = cudaErrorInvalidValue;
  }
  ::espalier::simulator::g_dynamic_limits[reinterpret_cast<const void*>(kernel)] = bytes;
  return cudaSuccess;
}

enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
};
struct cudaFuncAttributes {
  std::size_t sharedSizeBytes;
};
namespace espalier::simulator {
// A small H100. Kernels for fewer multiprocessors than tiles have several for each block.
inline int g_multiprocessors = 3, g_compute_capability = 9;
}  // namespace espalier::simulator

inline cudaError_t cudaGetDevice(int* device) {
  return *device = 0, cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount
               ? ::espalier::simulator::g_multiprocessors
               : ::espalier::simulator::g_compute_capability;
  return cudaSuccess;
}
template <class... P>
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, void (*)(P...)) {
  attributes->sharedSizeBytes = 1;  // unknown before it runs
  return cudaSuccess;
}

#include "runtime.hpp"
