// SPDX-License-Identifier: Apache-2.0
// The microkernel of a matrix product: a tile of C in registers. Reduction order: one chain of
// fused multiply-adds over k for each element, independent of the tile's size, so that a row has
// the same bits in every batch.
#pragma once

#include <cstdint>
#include <type_traits>

#include <espalier/ops/cpu/pack.hpp>

namespace espalier::cpu::detail {

/// Memory to prefetch, `rows` of `width` bytes: tiles prefetch one cache line of it per k while
/// they compute. Prefetches past its end are harmless.
class Ahead {
 public:
  Ahead() = default;
  Ahead(const void* first, std::int64_t rows, std::int64_t width, std::int64_t stride)
      : at_(static_cast<const char*>(first)), end_(at_ + width), stride_(stride) {
    const std::int64_t lines = (width + kLine - 1) / kLine;
    back_ = stride - lines * kLine;
    left_ = rows * lines;
  }

  struct Lines {
    const char* at;
    const char* end;  // of the row
    std::int64_t step, stride, back;
    ESP_SIMD_INLINE void prefetch() {
      __builtin_prefetch(at, 0, 2);
      at += step;
      const bool next_row = at >= end;
      at += next_row ? back : 0;
      end += next_row ? stride : 0;
    }
  };
  /// Lines for one tile. At the end of the memory it repeats `idle`, which is nearly free.
  ESP_SIMD_INLINE Lines lines(const void* idle) const {
    const char* same = static_cast<const char*>(idle);
    return left_ > 0 ? Lines{at_, end_, kLine, stride_, back_} : Lines{same, same + 1, 0, 0, 0};
  }
  ESP_SIMD_INLINE void asked_for(const Lines& lines, std::int64_t count) {
    if (left_ <= 0) return;
    at_ = lines.at;
    end_ = lines.end;
    left_ -= count;
  }

 private:
  static constexpr std::int64_t kLine = 64;
  const char* at_ = nullptr;
  const char* end_ = nullptr;
  std::int64_t stride_ = 0, back_ = 0, left_ = 0;
};

/// Slivers of packed B against rows of A, over one block of k.
template <std::floating_point T>
struct PanelBlock {
  const T* a;  // packed: panels [depth][kPanel]; direct: rows of stride_a elements
  const T* b;  // slivers [depth][kCols]
  T* c;        // [rows, cols], row-major
  std::int64_t rows;
  std::int64_t cols;
  std::int64_t depth;
  std::int64_t stride_a;  // 0: A is packed
  std::int64_t stride_c;
  T alpha;
  T beta;               // 0: C is not read
  const Ahead* source;  // source of the next sliver to pack; null: rows of A are prefetched
};

/// c = alpha * acc + beta * c
template <std::floating_point T, int L>
ESP_SIMD_INLINE void update(T* c, const simd::Vec<T, L>& acc, const simd::Vec<T, L>& alpha,
                            const simd::Vec<T, L>& beta, bool read) {
  const auto scaled = read ? fma(alpha, acc, beta * simd::Vec<T, L>::load(c)) : alpha * acc;
  scaled.store(c);
}
template <std::floating_point T, int L>
ESP_SIMD_INLINE void update_partial(T* c, int cols, const simd::Vec<T, L>& acc,
                                    const simd::Vec<T, L>& alpha, const simd::Vec<T, L>& beta,
                                    bool read) {
  alignas(64) T lanes[L];
  if (read) simd::Vec<T, L>::load_partial(c, cols).store(lanes);
  update(lanes, acc, alpha, beta, read);
  for (int i = 0; i < cols; ++i) c[i] = lanes[i];
}

/// Steps through k and gives the elements of A of a tile's rows.
template <std::floating_point T, int Stride>
struct PackedRows {
  const T* at;
  ESP_SIMD_INLINE PackedRows(const T* first, std::int64_t) : at(first) {}
  ESP_SIMD_INLINE T operator[](int i) const { return at[i]; }
  ESP_SIMD_INLINE void advance() { at += Stride; }
  ESP_SIMD_INLINE void prefetch(std::int64_t ahead) const {
    __builtin_prefetch(at + ahead * Stride);
  }
};
template <std::floating_point T, int Rows>
struct DirectRows {
  static constexpr int kGroups = (Rows + 2) / 3;
  const T* at[kGroups];  // every third row; the others are addressed by a scaled index
  std::int64_t stride;
  ESP_SIMD_INLINE DirectRows(const T* first, std::int64_t stride_a) : stride(stride_a) {
    ESP_UNROLL
    for (int g = 0; g < kGroups; ++g) at[g] = first + 3 * g * stride;
  }
  ESP_SIMD_INLINE T operator[](int i) const { return at[i / 3][(i % 3) * stride]; }
  ESP_SIMD_INLINE void advance() {
    ESP_UNROLL
    for (int g = 0; g < kGroups; ++g) ++at[g];
  }
  ESP_SIMD_INLINE void prefetch(std::int64_t) const {}
};

/// C = alpha acc + beta C in a tile of which `cols` columns exist.
template <int Rows, int Vectors, int W, std::floating_point T>
ESP_SIMD_INLINE void store_tile(typename simd::Native<T, W>::Raw (&acc)[Rows][Vectors], T* c,
                                int cols, const PanelBlock<T>& s) {
  using V = simd::Native<T, W>;
  constexpr int kLanes = Blocking<T, W>::kLanes;
  const std::int64_t stride_c = s.stride_c;
  const V alpha(s.alpha), beta(s.beta);
  const bool read = s.beta != T{0}, whole = cols >= Vectors * kLanes;
  if (whole && !read && s.alpha == T{1}) {
    ESP_UNROLL
    for (int i = 0; i < Rows; ++i) {
      ESP_UNROLL
      for (int j = 0; j < Vectors; ++j) V(acc[i][j]).store(c + i * stride_c + j * kLanes);
    }
    return;
  }
  if (whole) {
    ESP_UNROLL
    for (int i = 0; i < Rows; ++i) {
      ESP_UNROLL
      for (int j = 0; j < Vectors; ++j) {
        update(c + i * stride_c + j * kLanes, V(acc[i][j]), alpha, beta, read);
      }
    }
    return;
  }
  V rows[Rows][Vectors];  // in memory: the last columns need no speed
  __builtin_memcpy(rows, acc, sizeof acc);
  asm("" : "+m"(rows));
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) {
      const int lanes = std::min(kLanes, cols - j * kLanes);
      update_partial(c + i * stride_c + j * kLanes, lanes, rows[i][j], alpha, beta, read);
    }
  }
}

/// Rows x Vectors vectors of C, of which `cols` columns exist.
template <class A, int Rows, int Vectors, int W, std::floating_point T>
ESP_SIMD_INLINE void multiply_tile(A a, const T* b, T* c, int cols, const PanelBlock<T>& s,
                                   Ahead& ahead) {
  using Block = Blocking<T, W>;
  using V = simd::Native<T, W>;
  constexpr int kLanes = Block::kLanes;
  const std::int64_t depth = s.depth, stride_c = s.stride_c;
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) __builtin_prefetch(c + i * stride_c + j * kLanes, 1);
  }

  typename V::Raw acc[Rows][Vectors];  // bare vectors: kept in registers once unrolled
  ESP_UNROLL
  for (int i = 0; i < Rows; ++i) {
    ESP_UNROLL
    for (int j = 0; j < Vectors; ++j) acc[i][j] = typename V::Raw{};
  }
  Ahead::Lines lines = ahead.lines(b);
  // Unrolled by the compiler: with steps unrolled by hand it hoists loads too early, and spills.
#ifndef __CUDACC__
#pragma GCC unroll 4
#endif
  for (std::int64_t k = 0; k < depth; ++k) {
    if constexpr (!Block::kPanelStays) a.prefetch(depth);  // of the next panel
    lines.prefetch();
    V column[Vectors];
    ESP_UNROLL
    for (int j = 0; j < Vectors; ++j) column[j] = V::load(b + j * kLanes);
    ESP_UNROLL
    for (int i = 0; i < Rows; ++i) {
      const V scalar(a[i]);
      ESP_UNROLL
      for (int j = 0; j < Vectors; ++j) acc[i][j] = fma(scalar, column[j], V(acc[i][j])).v;
    }
    a.advance();
    b += Block::kCols;
  }
  ahead.asked_for(lines, depth);
  store_tile<Rows, Vectors, W>(acc, c, cols, s);
}

/// Multiplies rows [row, end) of one panel by a sliver of Vectors vectors: tiles of Rows rows, then
/// of fewer. A single vector of columns leaves registers for twice the rows.
template <bool Direct, int Vectors, int W, std::floating_point T,
          int Rows = Blocking<T, W>::kRows*(Vectors == 1 && W == 16 ? 2 : 1)>
ESP_SIMD_INLINE void multiply_rows(const PanelBlock<T>& s, std::int64_t row, std::int64_t end,
                                   const T* b, std::int64_t col, int cols, Ahead& ahead) {
  constexpr int kPanel = Blocking<T, W>::kPanel;
  constexpr int kRows = Rows < kPanel ? Rows : kPanel;
  constexpr int kStride = Blocking<T, W>::kPanelStride;
  using A = std::conditional_t<Direct, DirectRows<T, kRows>, PackedRows<T, kStride>>;
  for (; row + kRows <= end; row += kRows) {
    const T* a =
        Direct ? s.a + row * s.stride_a : s.a + row / kPanel * kStride * s.depth + row % kPanel;
    multiply_tile<A, kRows, Vectors, W>(A(a, s.stride_a), b, s.c + row * s.stride_c + col, cols, s,
                                        ahead);
  }
  if constexpr (kRows > 1) {
    constexpr int kFewer = kRows > 8 ? 8 : kRows > 4 ? 4 : kRows / 2;
    if (row < end) multiply_rows<Direct, Vectors, W, T, kFewer>(s, row, end, b, col, cols, ahead);
  }
}

template <int W, bool Direct, std::floating_point T>
ESP_SIMD_INLINE void multiply_panel(const PanelBlock<T>& s, std::int64_t row, std::int64_t col,
                                    Ahead& ahead) {
  using Block = Blocking<T, W>;
  const std::int64_t end = std::min<std::int64_t>(row + Block::kPanel, s.rows);
  const T* b = s.b + col * s.depth;
  const int cols = static_cast<int>(std::min<std::int64_t>(Block::kCols, s.cols - col));
  if (cols <= Block::kLanes) {
    multiply_rows<Direct, 1, W>(s, row, end, b, col, cols, ahead);
  } else if (Block::kVectors > 2 && cols <= 2 * Block::kLanes) {
    multiply_rows<Direct, 2, W>(s, row, end, b, col, cols, ahead);
  } else {
    multiply_rows<Direct, Block::kVectors, W>(s, row, end, b, col, cols, ahead);
  }
}
/// Loops in the order that reuses the part held in the L1 cache.
template <int W, bool Direct, std::floating_point T>
ESP_SIMD_INLINE void multiply_panels(const PanelBlock<T>& s) {
  using Block = Blocking<T, W>;
  Ahead ahead = s.source ? *s.source : Ahead();
  if constexpr (Block::kPanelStays) {
    for (std::int64_t row = 0; row < s.rows; row += Block::kPanel) {
      const std::int64_t next = row + Block::kPanel;
      if (Direct && !s.source && next < s.rows) {
        constexpr std::int64_t kSize{sizeof(T)};
        ahead = Ahead(s.a + next * s.stride_a, std::min<std::int64_t>(Block::kPanel, s.rows - next),
                      s.depth * kSize, s.stride_a * kSize);
      }
      for (std::int64_t col = 0; col < s.cols; col += Block::kCols)
        multiply_panel<W, Direct>(s, row, col, ahead);
    }
  } else {
    for (std::int64_t col = 0; col < s.cols; col += Block::kCols) {
      for (std::int64_t row = 0; row < s.rows; row += Block::kPanel)
        multiply_panel<W, Direct>(s, row, col, ahead);
    }
  }
}

#if defined(__x86_64__)
template <std::floating_point T, bool Direct>
ESP_TARGET_AVX512 void multiply_block_avx512(const PanelBlock<T>& s) {
  multiply_panels<16, Direct>(s);
}
template <std::floating_point T, bool Direct>
ESP_TARGET_AVX2 void multiply_block_avx2(const PanelBlock<T>& s) {
  multiply_panels<8, Direct>(s);
}
#endif
template <std::floating_point T, bool Direct>
void multiply_block_plain(const PanelBlock<T>& s) {
  multiply_panels<4, Direct>(s);
}

template <bool Direct, std::floating_point T>
void multiply_block(const PanelBlock<T>& s) {
#if defined(__x86_64__)
  if (isa() >= Isa::avx512) return multiply_block_avx512<T, Direct>(s);
  if (isa() == Isa::avx2) return multiply_block_avx2<T, Direct>(s);
#endif
  multiply_block_plain<T, Direct>(s);
}

}  // namespace espalier::cpu::detail
