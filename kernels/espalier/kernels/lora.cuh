// SPDX-License-Identifier: Apache-2.0
// The products of lora.hpp: the choice of their implementation, and the launch that adds up their
// sums.
#pragma once

#include <espalier/kernels/lora_mma.cuh>
#include <espalier/kernels/lora_plain.cuh>

namespace espalier::kernels {

template <class T, class... P>
bool lora_mma_fits(std::int64_t width, int rank, const P*... p) {
  return width % 8 == 0 && rank % 8 == 0 && rank <= kLoraMaxRank &&
         ((reinterpret_cast<std::uintptr_t>(p) % 16 == 0) && ...);
}

template <LoraPass kPass, class T>
cudaError_t lora_pass(const LoraPassArguments<T>& p, cudaStream_t stream) {
  if (p.rank == 0 || p.groups == 0) return cudaSuccess;
  if (p.rows > 0 && p.width > 0) {
    const auto launch = [&] {
      if constexpr (!std::is_same_v<T, float>) {
        if (lora_mma_fits<T>(p.width, p.rank, p.matrix, p.small)) {
          const cudaError_t error = lora_mma_pass<kPass>(p, stream);
          if (error != cudaErrorNotSupported) return error;
        }
      }
      return lora_plain_pass<kPass>(p, stream);
    };
    const cudaError_t error = launch();
    if (error != cudaSuccess) return error;
  }
  return lora_sum<kPass>(p, stream);
}

template <bool kRankInner, class T>
cudaError_t lora_update(const LoraUpArguments<T>& p, cudaStream_t stream) {
  if (p.rows == 0 || p.width == 0 || p.groups == 0) return cudaSuccess;
  if constexpr (!std::is_same_v<T, float>) {
    if (lora_mma_fits<T>(p.width, p.rank, p.y, p.small)) {
      const cudaError_t error = lora_mma_up<kRankInner>(p, stream);
      if (error != cudaErrorNotSupported) return error;
    }
  }
  return lora_plain_up<kRankInner>(p, stream);
}

template <class T>
cudaError_t lora_down(T* s, const T* x, const float* const* a, const std::int32_t* offsets,
                      int groups, std::int64_t rows, std::int64_t k, int rank, void* workspace,
                      cudaStream_t stream) {
  LoraPassArguments<T> p{{offsets, groups, rows, k, rank}, x};
  p.factor = a;
  p.out = s;
  p.tile_sums = static_cast<float*>(workspace);
  return lora_pass<LoraPass::down>(p, stream);
}

template <class T>
cudaError_t lora_up(T* y, const T* s, const float* const* b, const std::int32_t* offsets,
                    int groups, std::int64_t rows, std::int64_t n, int rank, float scale, bool add,
                    cudaStream_t stream) {
  const LoraUpArguments<T> p{{offsets, groups, rows, n, rank}, y, s, b, scale, add};
  return lora_update<true>(p, stream);
}

template <class T>
cudaError_t lora_backward_up(T* ds, float* const* db, const T* dy, const T* s,
                             const float* const* b, const std::int32_t* offsets, int groups,
                             std::int64_t rows, std::int64_t n, int rank, float scale,
                             void* workspace, cudaStream_t stream) {
  LoraPassArguments<T> p{{offsets, groups, rows, n, rank}, dy, s};
  p.factor = b;
  p.out = ds;
  p.gradient = db;
  p.tile_sums = static_cast<float*>(workspace);
  p.chunk_sums = p.tile_sums + lora_row_sums_bytes(rows, n, rank) / sizeof(float);
  p.scale = scale;
  return lora_pass<LoraPass::backward_up>(p, stream);
}

template <class T>
cudaError_t lora_backward_down(float* const* da, const T* ds, const T* x,
                               const std::int32_t* offsets, int groups, std::int64_t rows,
                               std::int64_t k, int rank, void* workspace, cudaStream_t stream) {
  LoraPassArguments<T> p{{offsets, groups, rows, k, rank}, x, ds};
  p.gradient = da;
  p.chunk_sums = static_cast<float*>(workspace);
  return lora_pass<LoraPass::backward_down>(p, stream);
}

template <class T>
cudaError_t lora_backward_input(T* dx, const T* ds, const float* const* a,
                                const std::int32_t* offsets, int groups, std::int64_t rows,
                                std::int64_t k, int rank, bool add, cudaStream_t stream) {
  const LoraUpArguments<T> p{{offsets, groups, rows, k, rank}, dx, ds, a, 1.0f, add};
  return lora_update<false>(p, stream);
}

}  // namespace espalier::kernels
