// SPDX-License-Identifier: Apache-2.0
// The softmax of a row, by a warp or by a block: its largest value, and the sum of the exponentials
// relative to it, in f32 in a fixed order. The row is read again for the probabilities; it is in
// the caches then. A NaN in the row, a +inf, or -inf alone make all probabilities NaN.
#pragma once

#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

/// Rows of which each warp takes one.
struct WarpRow {
  static __device__ __forceinline__ int lane() { return threadIdx.x % kWarp; }
  static __device__ __forceinline__ int lanes() { return kWarp; }
  static __device__ __forceinline__ float max(float v) { return warp_max(v); }
  static __device__ __forceinline__ float sum(float v) { return warp_sum(v); }
};
/// Rows of which each block takes one.
struct BlockRow {
  static __device__ __forceinline__ int lane() { return threadIdx.x; }
  static __device__ __forceinline__ int lanes() { return blockDim.x; }
  static __device__ __forceinline__ float max(float v) { return block_max(v); }
  static __device__ __forceinline__ float sum(float v) { return block_sum(v); }
};

struct RowSoftmax {
  float largest, sum;

  __device__ __forceinline__ float operator()(float x) const { return expf(x - largest) / sum; }
  __device__ __forceinline__ float log_sum_exp() const { return largest + logf(sum); }
};

/// f(c, v...) for every vector of kWidth elements of the row that is this lane's: `v` are the
/// vectors of the arrays x at column c.
template <class Row, int kWidth, class F, class... T>
__device__ __forceinline__ void for_vectors_of_row(std::int64_t n, const F& f, const T*... x) {
  for (std::int64_t c = std::int64_t{Row::lane()} * kWidth; c < n; c += Row::lanes() * kWidth) {
    f(c, load<T, kWidth>(x + c)...);
  }
}

/// Of the row x [n]; the same bits in each of the row's threads.
template <class Row, int kWidth = 1, class T>
__device__ __forceinline__ RowSoftmax softmax_of_row(const T* x, std::int64_t n) {
  RowSoftmax row{-INFINITY, 0};
  const auto raise = [&row](std::int64_t, const Vector<T, kWidth>& v) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) row.largest = fmaxf(row.largest, to_float(v.v[i]));
  };
  for_vectors_of_row<Row, kWidth>(n, raise, x);
  row.largest = Row::max(row.largest);
  const auto add = [&row](std::int64_t, const Vector<T, kWidth>& v) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) row.sum += expf(to_float(v.v[i]) - row.largest);
  };
  for_vectors_of_row<Row, kWidth>(n, add, x);
  row.sum = Row::sum(row.sum);
  return row;
}

}  // namespace espalier::kernels
