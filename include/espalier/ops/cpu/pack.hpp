// SPDX-License-Identifier: Apache-2.0
// Operands of a matrix product, copied into the order in which the microkernel reads them, and
// widened on the way. Per block of at most kDepth values of k:
//   A: panels of kPanel rows, [k][kPanelStride]     B: slivers of kCols columns, [k][kCols]
// A matrix stored in the other order is transposed in registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include <espalier/ops/cpu/simd.hpp>

namespace espalier::cpu {

/// A matrix in memory, row-major with `stride` elements between rows.
/// `transposed`: the memory holds the transpose.
struct MatrixView {
  const void* data;
  DType dtype;
  std::int64_t stride;
  bool transposed = false;

  MatrixView from_row(std::int64_t row) const {
    const std::int64_t elements = transposed ? row : row * stride;
    const auto* bytes = static_cast<const std::byte*>(data);
    return {bytes + elements * static_cast<std::int64_t>(size_of(dtype)), dtype, stride,
            transposed};
  }
};

namespace detail {

/// Block sizes for W floats per vector. The reduction order, and so every bit of the result,
/// depends on kDepth alone, not on the number of rows or threads.
template <std::floating_point T, int W>
struct Blocking {
  static constexpr int kLanes = simd::Native<T, W>::kLanes;
  // Of a register tile: 24 accumulators of 32 registers, 12 of 16, or 8 where a product and a sum
  // are not one instruction.
  static constexpr int kRows = W == 16 ? 8 : W == 8 ? 6 : 4;
  static constexpr int kVectors = W == 16 ? 3 : 2;
  static constexpr int kCols = kVectors * kLanes;
  // Rows of A that are packed side by side, [k][kPanelStride], whole tiles of them.
  static constexpr int kPanel = kLanes > kRows ? kLanes / kRows* kRows : kRows;
  static constexpr int kPanelStride = (kPanel + kLanes - 1) / kLanes * kLanes;
  // With wide vectors a panel of A stays in the L1 cache (of 48 KiB) while B is streamed from the
  // L2 cache. That takes more registers than avx2 has; there a sliver of B stays (in 32 KiB).
  static constexpr bool kPanelStays = W != 8;
  static constexpr int kDepth = (W == 8 ? 1024 : 2048) / static_cast<int>(sizeof(T));
};

/// Interleaves groups of Group elements of the lower or upper halves of each 16 bytes.
template <int L, int Lane, int Group, bool Upper>
struct Interleave {
  static constexpr int at(int i) {
    const int group = i % Lane / Group;
    return (group % 2 ? L : 0) + i / Lane * Lane + group / 2 * Group + i % Group +
           (Upper ? Lane / 2 : 0);
  }
};
/// Exchanges the off-diagonal blocks of Step x Step elements of two rows Step apart.
template <int L, int Step, bool Upper>
struct Exchange {
  static constexpr int at(int i) {
    const bool second = (i & Step) != 0;
    return Upper ? (second ? L + i : i + Step) : (second ? L + i - Step : i);
  }
};

template <int Step, std::floating_point T, int L>
ESP_SIMD_INLINE void exchange_blocks(typename simd::Vec<T, L>::Raw (&r)[L]) {
  using V = simd::Vec<T, L>;
  if constexpr (Step < L) {
    ESP_UNROLL
    for (int i = 0; i < L; ++i) {
      if (i & Step) continue;
      const V upper(r[i]), lower(r[i + Step]);
      r[i] = simd::shuffle<Exchange<L, Step, false>>(upper, lower).v;
      r[i + Step] = simd::shuffle<Exchange<L, Step, true>>(upper, lower).v;
    }
    exchange_blocks<2 * Step, T, L>(r);
  }
}

/// Transposes L x L elements: first inside each 16 bytes, then blocks of 16 bytes.
template <std::floating_point T, int L>
ESP_SIMD_INLINE void transpose(typename simd::Vec<T, L>::Raw (&r)[L]) {
  using V = simd::Vec<T, L>;
  constexpr int kLane = 16 / static_cast<int>(sizeof(T));
  if constexpr (kLane == 2) {
    ESP_UNROLL
    for (int i = 0; i < L; i += 2) {
      const V a(r[i]), b(r[i + 1]);
      r[i] = simd::shuffle<Interleave<L, 2, 1, false>>(a, b).v;
      r[i + 1] = simd::shuffle<Interleave<L, 2, 1, true>>(a, b).v;
    }
  } else {
    ESP_UNROLL
    for (int i = 0; i < L; i += 4) {
      const V a(r[i]), b(r[i + 1]), c(r[i + 2]), d(r[i + 3]);
      const V ab_low = simd::shuffle<Interleave<L, 4, 1, false>>(a, b);
      const V ab_high = simd::shuffle<Interleave<L, 4, 1, true>>(a, b);
      const V cd_low = simd::shuffle<Interleave<L, 4, 1, false>>(c, d);
      const V cd_high = simd::shuffle<Interleave<L, 4, 1, true>>(c, d);
      r[i] = simd::shuffle<Interleave<L, 4, 2, false>>(ab_low, cd_low).v;
      r[i + 1] = simd::shuffle<Interleave<L, 4, 2, true>>(ab_low, cd_low).v;
      r[i + 2] = simd::shuffle<Interleave<L, 4, 2, false>>(ab_high, cd_high).v;
      r[i + 3] = simd::shuffle<Interleave<L, 4, 2, true>>(ab_high, cd_high).v;
    }
  }
  exchange_blocks<kLane, T, L>(r);
}

/// Row-major [rows, cols] to its transpose, in squares of L; the rows of `to` are filled up with
/// zeros to whole vectors.
template <int L, std::floating_point T, class M>
ESP_SIMD_INLINE void copy_transposed(const M* from, std::int64_t from_stride, std::int64_t rows,
                                     std::int64_t cols, T* to, std::int64_t to_stride) {
  using V = simd::Vec<T, L>;
  alignas(64) M edge_in[L * L];
  alignas(64) T edge_out[L * L];
  for (std::int64_t i = 0; i < rows; i += L) {
    for (std::int64_t j = 0; j < cols; j += L) {
      const int height = static_cast<int>(std::min<std::int64_t>(L, rows - i));
      const int width = static_cast<int>(std::min<std::int64_t>(L, cols - j));
      const M* in = from + i * from_stride + j;
      T* out = to + j * to_stride + i;
      std::int64_t in_stride = from_stride, out_stride = to_stride;
      if (height < L || width < L) {  // through whole squares of zeros
        for (M& x : edge_in) x = M{};
        for (int r = 0; r < height; ++r) {
          for (int c = 0; c < width; ++c) edge_in[r * L + c] = in[r * from_stride + c];
        }
        in = edge_in, in_stride = L;
        out = edge_out, out_stride = L;
      }
      typename V::Raw square[L];
      ESP_UNROLL
      for (int r = 0; r < L; ++r) square[r] = V::load(in + r * in_stride).v;
      transpose<T, L>(square);
      ESP_UNROLL
      for (int c = 0; c < L; ++c) V(square[c]).store(out + c * out_stride);
      if (out == edge_out) {
        T* corner = to + j * to_stride + i;
        for (int c = 0; c < width; ++c) V::load(edge_out + c * L).store(corner + c * to_stride);
      }
    }
  }
}

/// Row-major [rows, cols], row by row; rows of `to` are filled up with zeros to whole vectors.
template <int L, std::floating_point T, class M>
ESP_SIMD_INLINE void copy_rows(const M* from, std::int64_t from_stride, std::int64_t rows,
                               std::int64_t cols, T* to, std::int64_t to_stride) {
  using V = simd::Vec<T, L>;
  for (std::int64_t i = 0; i < rows; ++i, from += from_stride, to += to_stride) {
    std::int64_t j = 0;
    for (; j + L <= cols; j += L) V::load(from + j).store(to + j);
    if (j < cols) V::load_partial(from + j, static_cast<int>(cols - j)).store(to + j);
  }
}

/// Rows [row, row + rows), columns [col, col + cols) of the matrix to row-major memory.
template <std::floating_point T>
void pack(const MatrixView& view, std::int64_t row, std::int64_t rows, std::int64_t col,
          std::int64_t cols, T* to, std::int64_t to_stride) {
  const auto copy = [&]<class M>() {
    // Rows and columns in memory order.
    const std::int64_t offset = view.transposed ? col * view.stride + row : row * view.stride + col;
    const M* from = static_cast<const M*>(view.data) + offset;
    const std::int64_t height = view.transposed ? cols : rows;
    const std::int64_t width = view.transposed ? rows : cols;
    simd::dispatch([&]<int W>() {
      constexpr int kLanes = Blocking<T, W>::kLanes;
      if (view.transposed) {
        copy_transposed<kLanes>(from, view.stride, height, width, to, to_stride);
      } else {
        copy_rows<kLanes>(from, view.stride, height, width, to, to_stride);
      }
    });
  };
  if constexpr (std::same_as<T, float>) {
    visit_dtype<float, bf16, f16>("gemm", view.dtype, copy);
  } else {
    visit_dtype<double, float, bf16, f16>("gemm", view.dtype, copy);
  }
}

}  // namespace detail
}  // namespace espalier::cpu
