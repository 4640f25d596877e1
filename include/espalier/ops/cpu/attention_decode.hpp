// SPDX-License-Identifier: Apache-2.0
// Scores of a few queries, as in decoding, where the products of attention_product.hpp would leave
// most lanes idle: here lanes are keys, transposed in registers as they are read. The reduction
// order over P is the same, so the bits are equal.
#pragma once

#include <espalier/ops/cpu/attention_blocks.hpp>

namespace espalier::cpu::detail {

inline constexpr int kFewQueries = 8;  // with more, vectors of queries are as fast

/// out [keys, kQueries] of `queries` [count, P] and rows of k, read as they are stored; P is whole
/// vectors of 64 bytes of A. Columns behind `count` keep what they held.
template <std::floating_point A, class T>
__attribute__((noinline)) void multiply_few(const T* k, std::int64_t stride, int keys,
                                            const A* queries, std::int64_t head_dim, int count,
                                            const FetchAhead& ahead, A* out) {
  constexpr int kTogether = 4;
  simd::dispatch([&]<int W>() {
    using V = simd::Native<A, W>;
    constexpr int kLanes = V::kLanes;
    for (int first = 0; first < count; first += kTogether) {
      const A* query[kTogether];
      for (int i = 0; i < kTogether; ++i) {
        query[i] = queries + std::min(first + i, count - 1) * head_dim;
      }
      for (int key = 0; key < keys; key += kLanes) {
        typename V::Raw acc[kTogether];
        ESP_UNROLL
        for (int i = 0; i < kTogether; ++i) acc[i] = typename V::Raw{};
        for (std::int64_t c = 0; c < head_dim; c += kLanes) {
          typename V::Raw square[kLanes];
          ESP_UNROLL
          for (int r = 0; r < kLanes; ++r) {
            const std::int64_t row = std::min(key + r, keys - 1);
            square[r] = V::load(k + row * stride + c).v;
            __builtin_prefetch(ahead.rows + row * ahead.stride + c * ahead.step, 0, 2);
          }
          transpose<A, kLanes>(square);
          ESP_UNROLL
          for (int p = 0; p < kLanes; ++p) {
            ESP_UNROLL
            for (int i = 0; i < kTogether; ++i) {
              acc[i] = fma(V(query[i][c + p]), V(square[p]), V(acc[i])).v;
            }
          }
        }
        alignas(64) A lanes[kTogether][kLanes];
        ESP_UNROLL
        for (int i = 0; i < kTogether; ++i) V(acc[i]).store(lanes[i]);
        for (int r = 0; r < std::min(kLanes, keys - key); ++r) {
          for (int i = 0; i < std::min(kTogether, count - first); ++i) {
            out[(key + r) * kQueries + first + i] = lanes[i][r];
          }
        }
      }
    }
  });
}

}  // namespace espalier::cpu::detail
