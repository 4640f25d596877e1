// SPDX-License-Identifier: Apache-2.0
// A few rows of f32 times a stored transpose (weights [n, k], the decoding of one token): bounded
// by the memory that the weights come from. Nothing is packed: squares of B are widened and
// transposed in registers, each meets every row at once. Sums as in the blocked product, to the
// same bits.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include <espalier/ops/cpu/gemm_problem.hpp>
#include <espalier/ops/cpu/microkernel.hpp>

namespace espalier::cpu::detail {

inline constexpr std::int64_t kNarrowRows = 4;
inline constexpr std::int64_t kNarrowCols = 32;       // of a task: whole squares on every processor
inline constexpr std::int64_t kNarrowFork = 1 << 17;  // elements of B worth a parallel region
inline constexpr std::int64_t kNarrowAhead = 8 * 64;  // bytes

template <std::floating_point T>
bool is_narrow(const GemmProblem<T>& p) {
  return std::same_as<T, float> && p.m <= kNarrowRows && p.b.transposed && !p.a.transposed &&
         p.a.dtype == DType::f32;
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
    for (; k + W <= end; k += W) {
      typename V::Raw square[W];
      ESP_UNROLL
      for (int i = 0; i < W; ++i) {
        const M* line = b + std::min(i, cols - 1) * p.b.stride + k;
        __builtin_prefetch(reinterpret_cast<const char*>(line) + kNarrowAhead);
        square[i] = V::load(line).v;
      }
      transpose<float, W>(square);
      ESP_UNROLL
      for (int i = 0; i < W; ++i) {
        ESP_UNROLL
        for (int r = 0; r < Rows; ++r) {
          acc[r] = fma(V(a[r * p.a.stride + k + i]), V(square[i]), V(acc[r])).v;
        }
      }
    }
    for (; k < end; ++k) {
      alignas(64) float column[W];
      for (int i = 0; i < W; ++i) {
        column[i] = static_cast<float>(b[std::min(i, cols - 1) * p.b.stride + k]);
      }
      ESP_UNROLL
      for (int r = 0; r < Rows; ++r) {
        acc[r] = fma(V(a[r * p.a.stride + k]), V::load(column), V(acc[r])).v;
      }
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

struct NarrowTask {
  const GemmProblem<float>* problem;
  std::int64_t col, depth;
};

inline void multiply_narrow(const NarrowTask& task) {
  const GemmProblem<float>& p = *task.problem;
  const std::int64_t end = std::min(task.col + kNarrowCols, p.n);
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

/// Each thread has the same columns in every call.
inline void run(const std::vector<NarrowTask>& tasks) {
  std::int64_t elements = 0;
  for (const NarrowTask& t : tasks) elements += kNarrowCols * t.problem->k;
  const auto count = static_cast<std::int64_t>(tasks.size());
  const auto some = [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) multiply_narrow(tasks[static_cast<std::size_t>(i)]);
  };
#ifdef _OPENMP
  const int threads = num_threads();
  if (elements >= kNarrowFork && threads > 1 && !omp_in_parallel()) {
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

}  // namespace espalier::cpu::detail
