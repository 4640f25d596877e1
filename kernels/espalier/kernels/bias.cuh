// SPDX-License-Identifier: Apache-2.0
// Forward: a warp per row, which looks its group up; 16 bytes a lane where rows are aligned to
// that, element by element where not. Backward: a thread per column and chunk of a group's rows,
// then one per column over the chunks. Deterministic: no atomics, one order per element.
#pragma once

#include <espalier/kernels/bias.hpp>
#include <espalier/kernels/rms_norm.cuh>
#include <espalier/kernels/row_columns.cuh>

namespace espalier::kernels {

inline constexpr int kBiasWarps = 8;

/// The last group that begins at `row` or before.
__device__ __forceinline__ int group_of_row(const std::int32_t* offsets, int groups,
                                            std::int64_t row) {
  int low = 0, high = groups;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (offsets[middle] <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// `one` is the bias of all rows where `each` is null.
template <class T, class B, int kWidth>
__global__ void __launch_bounds__(kBiasWarps* kWarp)
    add_bias_kernel(T* y, const T* x, const B* one, const B* const* each,
                    const std::int32_t* offsets, int groups, std::int64_t n, std::int64_t h) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kBiasWarps + threadIdx.x / kWarp;
  if (row >= n || (each != nullptr && row >= offsets[groups])) return;
  const B* bias = each == nullptr ? one : each[group_of_row(offsets, groups, row)];
  // A bias may be a row of a larger tensor: only its own address tells.
  const bool aligned = reinterpret_cast<std::uintptr_t>(bias) % 16 == 0;
  x += row * h;
  y += row * h;
  for_columns_of_row<kWidth>(h, [&]<int kVectors>(std::int64_t c) {
    Vector<T, kWidth> v[kVectors];
#pragma unroll
    for (int i = 0; i < kVectors; ++i) v[i] = load<T, kWidth>(x + column_of<kWidth>(c, i));
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const B* at = bias + column_of<kWidth>(c, i);
      Vector<float, kWidth> b;
      if (aligned) {
        b = load_gain<kWidth>(at);
      } else {
#pragma unroll
        for (int l = 0; l < kWidth; ++l) b.v[l] = to_float(at[l]);
      }
#pragma unroll
      for (int l = 0; l < kWidth; ++l) v[i].v[l] = from_float<T>(to_float(v[i].v[l]) + b.v[l]);
      store(y + column_of<kWidth>(c, i), v[i]);
    }
  });
}

template <class T, class B>
cudaError_t launch_add_bias(T* y, const T* x, const B* one, const B* const* each,
                            const std::int32_t* offsets, int groups, std::int64_t n, std::int64_t h,
                            cudaStream_t stream) {
  if (n == 0 || h == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(n, kBiasWarps));
  if (rows_are_aligned<T>(h, x, y)) {
    return ESP_LAUNCH((add_bias_kernel<T, B, kPerVector<T>>), blocks, kBiasWarps * kWarp, 0, stream,
                      y, x, one, each, offsets, groups, n, h);
  }
  return ESP_LAUNCH((add_bias_kernel<T, B, 1>), blocks, kBiasWarps * kWarp, 0, stream, y, x, one,
                    each, offsets, groups, n, h);
}

template <class T, class B>
cudaError_t add_bias(T* y, const T* x, const B* bias, std::int64_t n, std::int64_t h,
                     cudaStream_t stream) {
  return launch_add_bias<T, B>(y, x, bias, nullptr, nullptr, 1, n, h, stream);
}
template <class T, class B>
cudaError_t add_bias_grouped(T* y, const T* x, const B* const* biases, const std::int32_t* offsets,
                             int groups, std::int64_t n, std::int64_t h, cudaStream_t stream) {
  return launch_add_bias<T, B>(y, x, nullptr, biases, offsets, groups, n, h, stream);
}

// Grid: columns, chunks, groups; partial [chunks, G, H].
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    bias_chunk_kernel(float* partial, const T* dy, const std::int32_t* offsets, std::int64_t n,
                      std::int64_t h) {
  const std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (c >= h) return;
  const std::int64_t from = offsets == nullptr ? 0 : offsets[blockIdx.z];
  const std::int64_t to = offsets == nullptr ? n : offsets[blockIdx.z + 1];
  const std::int64_t rows = ceil_div<std::int64_t>(to - from, gridDim.y);
  const std::int64_t begin = from + blockIdx.y * rows, end = begin + rows < to ? begin + rows : to;
  float sum = 0;
  for (std::int64_t row = begin; row < end; ++row) sum += to_float(dy[row * h + c]);
  partial[(std::int64_t{blockIdx.y} * gridDim.z + blockIdx.z) * h + c] = sum;
}

template <class T>
cudaError_t bias_backward(float* db, const T* dy, const std::int32_t* offsets, int groups,
                          std::int64_t n, std::int64_t h, void* workspace, cudaStream_t stream) {
  if (h == 0 || groups == 0) return cudaSuccess;
  const auto blocks = [](std::int64_t columns) {
    return static_cast<unsigned>(ceil_div<std::int64_t>(columns, kNormThreads));
  };
  const auto chunks = static_cast<unsigned>(bias_chunks(n, groups));
  auto* partial = chunks == 1 ? db : static_cast<float*>(workspace);
  const cudaError_t error =
      ESP_LAUNCH(bias_chunk_kernel<T>, dim3(blocks(h), chunks, static_cast<unsigned>(groups)),
                 kNormThreads, 0, stream, partial, dy, offsets, n, h);
  if (error != cudaSuccess || chunks == 1) return error;
  return ESP_LAUNCH(sum_chunks_kernel, blocks(groups * h), kNormThreads, 0, stream, db, partial,
                    static_cast<int>(chunks), groups * h);
}

}  // namespace espalier::kernels
