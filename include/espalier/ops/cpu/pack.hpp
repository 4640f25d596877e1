// SPDX-License-Identifier: Apache-2.0
// Operands of a matrix product, copied into the order in which the microkernel reads them, and
// widened on the way. Per block of at most kDepth values of k:
//   A: rows of kStride elements, k fastest          B: slivers of kCols columns, [k][kCols]
// A matrix whose memory runs the other way is transposed in registers.
#pragma once

#include <algorithm>
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
};

namespace detail {

/// Sizes of the blocks for W floats per vector. The order of summation, and so every bit of the
/// result, depends on kDepth alone: neither the number of rows nor of threads has a say.
template <FloatElement T, int W>
struct Blocking {
  static constexpr int kLanes = simd::Native<T, W>::kLanes;
  static constexpr int kRows = W == 16 ? 14 : 6;  // of a register tile: all but 4 of the registers
  static constexpr int kCols = 2 * kLanes;
  static constexpr int kDepth = 1024 / static_cast<int>(sizeof(T));
  // One more cache line, so that the rows of a tile lie in different sets of the L1 cache.
  static constexpr int kStride = kDepth + 64 / static_cast<int>(sizeof(T));
};

/// Lane I of the result is lane Index::at(I) of the concatenation of a and b.
template <class Index, FloatElement T, int L, int... I>
ESP_SIMD_INLINE simd::Vec<T, L> shuffle(const simd::Vec<T, L>& a, const simd::Vec<T, L>& b,
                                        std::integer_sequence<int, I...>) {
#if defined(__clang__)
  return simd::Vec<T, L>(__builtin_shufflevector(a.v, b.v, Index::at(I)...));
#else
  using Mask = simd::detail::Raw<simd::detail::IntOf<T>, L>;
  return simd::Vec<T, L>(__builtin_shuffle(a.v, b.v, Mask{Index::at(I)...}));
#endif
}
template <class Index, FloatElement T, int L>
ESP_SIMD_INLINE simd::Vec<T, L> shuffle(const simd::Vec<T, L>& a, const simd::Vec<T, L>& b) {
  return shuffle<Index>(a, b, std::make_integer_sequence<int, L>{});
}

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

template <int Step, FloatElement T, int L>
ESP_SIMD_INLINE void exchange_blocks(simd::Vec<T, L> (&r)[L]) {
  if constexpr (Step < L) {
    for (int i = 0; i < L; ++i) {
      if (i & Step) continue;
      const auto upper = r[i], lower = r[i + Step];
      r[i] = shuffle<Exchange<L, Step, false>>(upper, lower);
      r[i + Step] = shuffle<Exchange<L, Step, true>>(upper, lower);
    }
    exchange_blocks<2 * Step>(r);
  }
}

/// Transposes L x L elements: first inside each 16 bytes, then blocks of 16 bytes.
template <FloatElement T, int L>
ESP_SIMD_INLINE void transpose(simd::Vec<T, L> (&r)[L]) {
  constexpr int kLane = 16 / static_cast<int>(sizeof(T));
  if constexpr (kLane == 2) {
    for (int i = 0; i < L; i += 2) {
      const auto a = r[i], b = r[i + 1];
      r[i] = shuffle<Interleave<L, 2, 1, false>>(a, b);
      r[i + 1] = shuffle<Interleave<L, 2, 1, true>>(a, b);
    }
  } else {
    for (int i = 0; i < L; i += 4) {
      const auto ab_low = shuffle<Interleave<L, 4, 1, false>>(r[i], r[i + 1]);
      const auto ab_high = shuffle<Interleave<L, 4, 1, true>>(r[i], r[i + 1]);
      const auto cd_low = shuffle<Interleave<L, 4, 1, false>>(r[i + 2], r[i + 3]);
      const auto cd_high = shuffle<Interleave<L, 4, 1, true>>(r[i + 2], r[i + 3]);
      r[i] = shuffle<Interleave<L, 4, 2, false>>(ab_low, cd_low);
      r[i + 1] = shuffle<Interleave<L, 4, 2, true>>(ab_low, cd_low);
      r[i + 2] = shuffle<Interleave<L, 4, 2, false>>(ab_high, cd_high);
      r[i + 3] = shuffle<Interleave<L, 4, 2, true>>(ab_high, cd_high);
    }
  }
  exchange_blocks<kLane>(r);
}

/// Row-major [rows, cols] to its transpose, in squares of L; the rows of `to` are filled up with
/// zeros to whole vectors.
template <int L, FloatElement T, class M>
ESP_SIMD_INLINE void copy_transposed(const M* from, std::int64_t from_stride, std::int64_t rows,
                                     std::int64_t cols, T* to, std::int64_t to_stride) {
  using V = simd::Vec<T, L>;
  for (std::int64_t i = 0; i < rows; i += L) {
    for (std::int64_t j = 0; j < cols; j += L) {
      const M* corner = from + i * from_stride + j;
      const int height = static_cast<int>(std::min<std::int64_t>(L, rows - i));
      const int width = static_cast<int>(std::min<std::int64_t>(L, cols - j));
      V square[L];
      if (height == L && width == L) {
        for (int r = 0; r < L; ++r) square[r] = V::load(corner + r * from_stride);
      } else {
        for (int r = 0; r < height; ++r) {
          square[r] = V::load_partial(corner + r * from_stride, width);
        }
      }
      transpose(square);
      for (int c = 0; c < width; ++c) square[c].store(to + (j + c) * to_stride + i);
    }
  }
}

/// Row-major [rows, cols], row by row; rows of `to` are filled up with zeros to whole vectors.
template <int L, FloatElement T, class M>
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
template <FloatElement T>
void pack(const MatrixView& view, std::int64_t row, std::int64_t rows, std::int64_t col,
          std::int64_t cols, T* to, std::int64_t to_stride) {
  const auto copy = [&]<class M>() {
    // Rows and columns as they lie in memory.
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
