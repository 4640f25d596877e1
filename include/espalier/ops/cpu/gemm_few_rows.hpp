// SPDX-License-Identifier: Apache-2.0
// Products of at most four rows with a transposed B (weights [n, k], the decoding of one token):
// bounded by the bandwidth of B. B is not packed: its squares are transposed in registers and
// widened, those of bf16 as pairs, and each is used by all rows at once. The reduction order is
// that of the blocked product, so the bits are equal.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <espalier/ops/cpu/gemm_problem.hpp>
#include <espalier/ops/cpu/microkernel.hpp>

namespace espalier::cpu::detail {

inline constexpr std::int64_t kFewRows = 4;
inline constexpr std::int64_t kFewRowsCols = 32;       // per task: whole squares on every processor
inline constexpr std::int64_t kFewRowsFork = 1 << 17;  // elements of B worth a parallel region
inline constexpr std::int64_t kFewRowsAhead = 8 * 64;  // bytes

template <std::floating_point T>
bool has_few_rows(const GemmProblem<T>& p) {
  return std::same_as<T, float> && p.m <= kFewRows && p.b.transposed && !p.a.transposed;
}

/// Values of k per square: as many as fill a vector, twice as many for bf16.
template <class M, int W>
inline constexpr int kSquareDepth = std::same_as<M, bf16> ? 2 * W : W;

/// acc[r] += a[r][k] * column for each row.
template <int Rows, int W>
ESP_SIMD_INLINE void add_column(typename simd::Vec<float, W>::Raw (&acc)[Rows], const float* a,
                                std::int64_t stride, const simd::Vec<float, W>& column) {
  using V = simd::Vec<float, W>;
  ESP_UNROLL
  for (int r = 0; r < Rows; ++r) acc[r] = fma(V(a[r * stride]), column, V(acc[r])).v;
}

/// acc[r] += the sum over one square of k of a[r][k] b[., k], k by k. Lines of b are columns; those
/// from `cols` on repeat the last.
template <int Rows, int W, class M>
ESP_SIMD_INLINE void add_square(typename simd::Vec<float, W>::Raw (&acc)[Rows], const float* a,
                                std::int64_t stride_a, const M* b, std::int64_t stride_b,
                                int cols) {
  using V = simd::Vec<float, W>;
  typename V::Raw square[W];
  ESP_UNROLL
  for (int i = 0; i < W; ++i) {
    const M* line = b + std::min(i, cols - 1) * stride_b;
    __builtin_prefetch(reinterpret_cast<const char*>(line) + kFewRowsAhead);
    if constexpr (kSquareDepth<M, W> == W) {
      square[i] = V::load(line).v;
    } else {
      __builtin_memcpy(&square[i], line, sizeof square[i]);
    }
  }
  transpose<float, W>(square);
  ESP_UNROLL
  for (int i = 0; i < W; ++i) {
    if constexpr (kSquareDepth<M, W> == W) {
      add_column<Rows, W>(acc, a + i, stride_a, V(square[i]));
    } else {
      using Bits = simd::detail::Raw<std::uint32_t, W>;
      const auto pair = reinterpret_cast<Bits>(square[i]);
      const auto even = reinterpret_cast<typename V::Raw>(pair << 16);
      const auto odd = reinterpret_cast<typename V::Raw>(pair & 0xffff0000u);
      add_column<Rows, W>(acc, a + 2 * i, stride_a, V(even));
      add_column<Rows, W>(acc, a + 2 * i + 1, stride_a, V(odd));
    }
  }
}

/// Columns [col, col + lanes) of `Rows` rows of C; `cols` of them exist. `depth`: of a block of k.
template <int Rows, int W, class M>
ESP_SIMD_INLINE void multiply_columns(const GemmProblem<float>& p, std::int64_t first,
                                      std::int64_t col, int cols, std::int64_t depth) {
  using V = simd::Vec<float, W>;
  const float* a = static_cast<const float*>(p.a.data) + first * p.a.stride;
  const M* b = static_cast<const M*>(p.b.data) + col * p.b.stride;
  float* c = p.c + first * p.stride_c + col;
  const V alpha(p.alpha);
  for (std::int64_t begin = 0; begin < p.k; begin += depth) {
    const std::int64_t end = std::min(begin + depth, p.k);
    typename V::Raw acc[Rows];
    ESP_UNROLL
    for (int r = 0; r < Rows; ++r) acc[r] = typename V::Raw{};
    std::int64_t k = begin;
    constexpr int kStep = kSquareDepth<M, W>;
    for (; k + kStep <= end; k += kStep) {
      add_square<Rows, W>(acc, a + k, p.a.stride, b + k, p.b.stride, cols);
    }
    for (; k < end; ++k) {
      alignas(64) float column[W];
      for (int i = 0; i < W; ++i) {
        column[i] = static_cast<float>(b[std::min(i, cols - 1) * p.b.stride + k]);
      }
      add_column<Rows, W>(acc, a + k, p.a.stride, V::load(column));
    }
    const float scale = begin == 0 ? p.beta : 1;
    ESP_UNROLL
    for (int r = 0; r < Rows; ++r) {
      float* to = c + r * p.stride_c;
      if (cols == W) {
        update(to, V(acc[r]), alpha, V(scale), scale != 0);
      } else {
        update_partial(to, cols, V(acc[r]), alpha, V(scale), scale != 0);
      }
    }
  }
}

struct FewRowTask {
  const GemmProblem<float>* problem;
  std::int64_t col, depth;
};

ESP_ON_DEMAND inline void multiply_few_rows(const FewRowTask& task) {
  const GemmProblem<float>& p = *task.problem;
  const std::int64_t end = std::min(task.col + kFewRowsCols, p.n);
  visit_dtype<float, bf16, f16>("gemm", p.b.dtype, [&]<class M>() {
    simd::dispatch([&]<int W>() {
      for (std::int64_t col = task.col; col < end; col += W) {
        const int cols = static_cast<int>(std::min<std::int64_t>(W, end - col));
        std::int64_t row = 0;
        for (; row + 4 <= p.m; row += 4) multiply_columns<4, W, M>(p, row, col, cols, task.depth);
        for (; row + 2 <= p.m; row += 2) multiply_columns<2, W, M>(p, row, col, cols, task.depth);
        for (; row < p.m; ++row) multiply_columns<1, W, M>(p, row, col, cols, task.depth);
      }
    });
  });
}

/// Products of a few rows, collected and then computed together. Keeps its memory.
class FewRowProducts {
 public:
  ESP_ON_DEMAND void clear() {
    problems_.clear();
    tasks_.clear();
    widened_ = 0;
  }
  ESP_ON_DEMAND void add(const GemmProblem<float>& p) {
    problems_.push_back(p);
    if (p.a.dtype != DType::f32) widened_ += p.m * widened_stride(p);
  }
  /// Each thread has the same columns in every call.
  ESP_ON_DEMAND void multiply(std::int64_t deepest) {
    if (problems_.empty()) return;
    widen_rows();
    [[maybe_unused]] std::int64_t elements = 0;
    for (const GemmProblem<float>& p : problems_) {
      const std::int64_t depth = block_depth(p.k, deepest);
      for (std::int64_t col = 0; col < p.n; col += kFewRowsCols) tasks_.push_back({&p, col, depth});
      elements += p.n * p.k;
    }
    const auto count = static_cast<std::int64_t>(tasks_.size());
    const auto some = [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        multiply_few_rows(tasks_[static_cast<std::size_t>(i)]);
    };
#ifdef _OPENMP
    const int threads = num_threads();
    if (elements >= kFewRowsFork && threads > 1 && !omp_in_parallel()) {
#pragma omp parallel num_threads(threads)
      {
        const int thread = omp_get_thread_num();
        some(count * thread / threads, count * (thread + 1) / threads);
      }
      return;
    }
#endif
    some(0, count);
  }

 private:
  /// pack fills rows up to whole vectors.
  static std::int64_t widened_stride(const GemmProblem<float>& p) {
    return ceil_div(p.k, 16) * 16;
  }
  ESP_ON_DEMAND void widen_rows() {
    if (rows_.size() < static_cast<std::size_t>(widened_)) {
      rows_.resize(static_cast<std::size_t>(widened_));
    }
    float* to = rows_.data();
    for (GemmProblem<float>& p : problems_) {
      if (p.a.dtype == DType::f32) continue;
      const std::int64_t stride = widened_stride(p);
      pack(p.a, 0, p.m, 0, p.k, to, stride);
      p.a = {to, DType::f32, stride};
      to += p.m * stride;
    }
  }

  std::vector<GemmProblem<float>> problems_;
  std::vector<FewRowTask> tasks_;
  std::vector<float> rows_;  // of A, where they are of another type
  std::int64_t widened_ = 0;
};

}  // namespace espalier::cpu::detail
