// SPDX-License-Identifier: Apache-2.0
// A warp and the columns of its row: several vectors a lane at a time, so that their loads are
// under way together, and sums of rows over them in f32.
#pragma once

#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

/// Where vector i of those that a lane has at column c begins.
template <int kWidth>
__device__ __forceinline__ std::int64_t column_of(std::int64_t c, int i) {
  return c + i * kWarp * kWidth;
}

/// Calls f.operator()<kVectors>(c) until the warp has covered the columns [0, h): this lane does
/// kWidth elements from column_of<kWidth>(c, i) on, i < kVectors.
template <int kWidth, class F>
__device__ __forceinline__ void for_columns_of_row(std::int64_t h, F f) {
  constexpr int kBatch = 4;
  std::int64_t c = threadIdx.x % kWarp * kWidth;
  for (; column_of<kWidth>(c, kBatch - 1) < h; c = column_of<kWidth>(c, kBatch)) {
    f.template operator()<kBatch>(c);
  }
  for (; c < h; c = column_of<kWidth>(c, 1)) f.template operator()<1>(c);
}

/// Weighted sums of rows at the columns of a call.
template <class T, int kWidth, int kVectors>
struct RowSums {
  float sum[kVectors][kWidth] = {};

  __device__ __forceinline__ void add(float weight, const T* row) {
    Vector<T, kWidth> v[kVectors];
#pragma unroll
    for (int i = 0; i < kVectors; ++i) v[i] = load<T, kWidth>(row + column_of<kWidth>(0, i));
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
#pragma unroll
      for (int l = 0; l < kWidth; ++l) sum[i][l] += weight * to_float(v[i].v[l]);
    }
  }
  __device__ __forceinline__ void store_to(T* row) const {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      Vector<T, kWidth> out;
#pragma unroll
      for (int l = 0; l < kWidth; ++l) out.v[l] = from_float<T>(sum[i][l]);
      store(row + column_of<kWidth>(0, i), out);
    }
  }
};

}  // namespace espalier::kernels
