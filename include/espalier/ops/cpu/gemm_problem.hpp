// SPDX-License-Identifier: Apache-2.0
// The description of a matrix product, C[m, n] = alpha * A[m, k] B[k, n] + beta * C, and its
// checks. A bf16 C is computed in f32 and rounded once.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include <espalier/core/threads.hpp>
#include <espalier/core/trace.hpp>
#include <espalier/ops/cpu/pack.hpp>
#include <espalier/tensor/storage.hpp>

namespace espalier::cpu {

template <FloatElement T>
struct GemmProblem {
  std::int64_t m, n, k;
  MatrixView a, b;
  T* c;
  std::int64_t stride_c;
  acc_t<T> alpha = 1;
  acc_t<T> beta = 0;  // 0: C is not read
};

namespace detail {

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

/// k is summed in blocks of about equal depth, all but the last a multiple of 16.
inline std::int64_t block_depth(std::int64_t k, std::int64_t deepest) {
  return std::min(ceil_div(ceil_div(k, ceil_div(k, deepest)), 16) * 16, k);
}

template <FloatElement T>
void check(const GemmProblem<T>& p) {
  ESP_REQUIRE(p.m >= 0 && p.n >= 0 && p.k >= 0, ShapeError, "gemm: m n k are ", p.m, ' ', p.n, ' ',
              p.k, "; expected none below 0");
  const auto check_view = [](const char* which, const MatrixView& v, std::int64_t rows,
                             std::int64_t cols) {
    const bool known = v.dtype == DType::f32 || v.dtype == DType::bf16 || v.dtype == DType::f16 ||
                       v.dtype == dtype_of<T>::value;
    ESP_REQUIRE(known, DTypeError, "gemm: ", which, " is ", name(v.dtype),
                "; expected f32, bf16, f16 or the type of C, ", name(dtype_of<T>::value));
    const std::int64_t width = v.transposed ? rows : cols;
    const std::int64_t height = v.transposed ? cols : rows;
    ESP_REQUIRE(height <= 1 || v.stride >= width, ShapeError, "gemm: ", which, " has stride ",
                v.stride, ", expected at least its row length ", width);
  };
  check_view("a", p.a, p.m, p.k);
  check_view("b", p.b, p.k, p.n);
  ESP_REQUIRE(p.m <= 1 || p.stride_c >= p.n, ShapeError, "gemm: c has stride ", p.stride_c,
              ", expected at least its row length ", p.n);
}

/// Records bytes and flops of the products in the trace, each operand counted once.
template <FloatElement T>
void count(std::span<const GemmProblem<T>> problems) {
  if (!trace::enabled()) return;
  for (const GemmProblem<T>& p : problems) {
    if (p.m == 0 || p.n == 0) continue;
    const auto m = static_cast<double>(p.m), n = static_cast<double>(p.n),
               k = static_cast<double>(p.k);
    const auto a = static_cast<double>(size_of(p.a.dtype)),
               b = static_cast<double>(size_of(p.b.dtype));
    trace::count(2 * m * n * k, m * k * a + k * n * b + m * n * sizeof(T) * (p.beta == 0 ? 1 : 2),
                 p.a.dtype == DType::bf16 && p.b.dtype == DType::bf16);
  }
}

/// k = 0: C = beta * C.
template <FloatElement T>
void scale_c(const GemmProblem<T>& p) {
  for (std::int64_t i = 0; i < p.m; ++i) {
    for (std::int64_t j = 0; j < p.n; ++j) {
      T& c = p.c[i * p.stride_c + j];
      c = p.beta == 0 ? T(0.f) : static_cast<T>(p.beta * static_cast<acc_t<T>>(c));
    }
  }
}

/// Copies rows [row, row + rows) of C to or from a contiguous f32 buffer.
template <bool Load>
void copy_c(const GemmProblem<bf16>& p, std::int64_t row, std::int64_t rows, float* copy) {
  parallel_for(rows, ceil_div(1 << 15, p.n), [&](std::int64_t begin, std::int64_t end) {
    simd::dispatch([&]<int W>() {
      using V = simd::Native<bf16, W>;
      for (std::int64_t i = begin; i < end; ++i) {
        bf16* c = p.c + (row + i) * p.stride_c;
        float* f = copy + i * p.n;
        std::int64_t j = 0;
        for (; j + W <= p.n; j += W) {
          if (Load) V::load(c + j).store(f + j);
          if (!Load) V::load(f + j).store(c + j);
        }
        const int rest = static_cast<int>(p.n - j);
        if (Load) V::load_partial(c + j, rest).store_partial(f + j, rest);
        if (!Load) V::load_partial(f + j, rest).store_partial(c + j, rest);
      }
    });
  });
}

/// Products into a bf16 C by `multiply`, which takes problems with C of f32: copies of some rows at
/// a time, rounded at the end.
template <class Multiply>
void multiply_rounded(std::span<const GemmProblem<bf16>> problems, Multiply multiply) {
  constexpr std::int64_t kCopied = std::int64_t{16} << 20;  // elements at a time
  std::vector<GemmProblem<float>> copies;
  struct Source {
    const GemmProblem<bf16>* problem;
    std::int64_t row;  // the first
  };
  std::vector<Source> sources;
  std::vector<std::shared_ptr<std::byte>> memory;
  std::int64_t held = 0;
  const auto finish = [&] {
    multiply(std::span<const GemmProblem<float>>(copies));
    for (std::size_t i = 0; i < copies.size(); ++i) {
      copy_c<false>(*sources[i].problem, sources[i].row, copies[i].m, copies[i].c);
    }
    copies.clear(), sources.clear(), memory.clear();
    held = 0;
  };
  for (const GemmProblem<bf16>& p : problems) {
    for (std::int64_t row = 0; row < p.m && p.n > 0;) {
      const std::int64_t rows = std::min(p.m - row, std::max(kCopied / p.n, std::int64_t{16}));
      if (held > 0 && held + rows * p.n > kCopied) finish();
      held += rows * p.n;
      memory.push_back(allocate_bytes(static_cast<std::size_t>(rows * p.n) * sizeof(float)));
      float* const copy = reinterpret_cast<float*>(memory.back().get());
      if (p.beta != 0) copy_c<true>(p, row, rows, copy);
      copies.push_back({rows, p.n, p.k, p.a.from_row(row), p.b, copy, p.n, p.alpha, p.beta});
      sources.push_back({&p, row});
      row += rows;
    }
  }
  finish();
}

}  // namespace detail
}  // namespace espalier::cpu
