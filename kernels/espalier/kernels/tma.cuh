// SPDX-License-Identifier: Apache-2.0
// TMA (sm_90): copies boxes of a row-major matrix of 2-byte elements, 64 columns (128 bytes) wide,
// from global to shared memory. The 16-byte chunks of a row are permuted by the
// "128-byte swizzle" (chunk c of row r lies at c ^ r % 8; the box begins at a multiple of 1024), as
// wgmma reads them. What lies outside of the matrix is 0. A tensor map describes the matrix; it is
// encoded by the host, and may be copied and moved to another matrix by a kernel.
#pragma once

#include <espalier/kernels/mbarrier.cuh>
#ifdef __CUDACC__
#include <cuda.h>
#endif

namespace espalier::kernels {

#ifdef __CUDACC__
using TensorMap = CUtensorMap;
#else
using simulator::TensorMap;
#endif

inline constexpr int kTmaColumns = 64;

#ifdef __CUDACC__
/// Of the driver that the runtime has loaded: a program need not be linked with libcuda. Null where
/// the driver is too old.
inline auto tensor_map_encoder() {
  static void* const encoder = [] {
    void* entry = nullptr;
    cudaDriverEntryPointQueryResult found;
    const cudaError_t error = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry,
                                                               12000, cudaEnableDefault, &found);
    return error == cudaSuccess && found == cudaDriverEntryPointSuccess ? entry : nullptr;
  }();
  return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(encoder);
}
#endif

/// A map of a matrix [rows, columns] at `p`, for boxes of `box_rows` (up to 256) rows. `p` is
/// aligned to 16 bytes, `columns` a multiple of 8. A matrix without elements has a map, but no box
/// to load.
template <class T>
cudaError_t encode_tensor_map(TensorMap& map, const T* p, std::int64_t rows, std::int64_t columns,
                              int box_rows) {
  static_assert(sizeof(T) == 2, "encode_tensor_map: elements of 2 bytes");
  const std::uint64_t size[] = {std::uint64_t(columns > 0 ? columns : 8),
                                std::uint64_t(rows > 0 ? rows : 1)};
  const std::uint64_t stride = size[0] * sizeof(T);
  const std::uint32_t box[] = {kTmaColumns, std::uint32_t(box_rows)};
#ifdef __CUDACC__
  const auto encode = tensor_map_encoder();
  if (encode == nullptr) return cudaErrorNotSupported;
  const std::uint32_t step[] = {1, 1};
  const CUresult result =
      encode(&map,
             std::is_same_v<T, __half> ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                       : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
             2, const_cast<T*>(p), size, &stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
             CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
             CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
#else
  return simulator::encode_map(map, p, size, stride, box);
#endif
}

/// `map` becomes a map of the same kind of matrix at `p`, with `rows` rows (0: as many as before).
/// Until tensor_map_acquire() in another launch, nobody may load through it.
__device__ __forceinline__ void replace_matrix(TensorMap* map, const void* p, unsigned rows) {
#ifdef __CUDACC__
  const std::uint64_t at = __cvta_generic_to_global(map);
  asm volatile("tensormap.replace.tile.global_address.global.b1024.b64 [%0], %1;\n" ::"l"(at),
               "l"(p)
               : "memory");
  if (rows != 0) {
    asm volatile("tensormap.replace.tile.global_dim.global.b1024.b32 [%0], 1, %1;\n" ::"l"(at),
                 "r"(rows)
                 : "memory");
  }
#else
  simulator::rewrite_map(map, p, rows);
#endif
}

/// Publishes the tensor maps that this thread wrote.
__device__ __forceinline__ void tensor_map_release() {
  ESP_PTX(release_maps(), "fence.proxy.tensormap::generic.release.gpu;\n" ::: "memory");
}

/// Before the first load of this thread through a map that a kernel wrote.
__device__ __forceinline__ void tensor_map_acquire(const TensorMap* map) {
  ESP_PTX(acquire_map(map), "fence.proxy.tensormap::generic.acquire.gpu [%0], 128;\n" ::"l"(map)
          : "memory");
}

/// Starts the copy of the box whose first element is (row, column); its bytes count for `landed`.
__device__ __forceinline__ void tma_load(void* to, const TensorMap* map, int row, int column,
                                         Mbarrier& landed) {
  ESP_PTX(load_box(to, map, row, column, &landed),
          "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
          "[%0], [%1, {%2, %3}], [%4];\n" ::"r"(shared_address(to)),
          "l"(map), "r"(column), "r"(row), "r"(shared_address(&landed))
          : "memory");
}

}  // namespace espalier::kernels
