// SPDX-License-Identifier: Apache-2.0
// C[m, n] = alpha * A[m, k] B[k, n] + beta * C on the CPU, for one problem or a batch of uneven
// ones (the experts of a mixture) in one parallel region. A row of C has the same bits for any
// number of threads and any m, on one instruction set.
#pragma once

#include <cstdint>
#include <span>

#include <espalier/core/inline.hpp>
#include <espalier/ops/cpu/gemm_bf16.hpp>
#include <espalier/ops/cpu/gemm_blocked.hpp>

namespace espalier::cpu {

/// Every problem; they must not write the same element.
/// @throws ShapeError, DTypeError before anything is written.
template <FloatElement T>
void gemm_batch(std::span<const GemmProblem<T>> problems) {
  for (const auto& p : problems) detail::check(p);
  detail::count(problems);
  if constexpr (!std::same_as<T, double>) {
    problems = detail::multiply_where_bf16(problems);
  }
  if constexpr (std::same_as<T, bf16>) {
    detail::multiply_rounded(problems, detail::multiply_widened<float>);
  } else {
    detail::multiply_widened(problems);
  }
}

ESP_COMPILED_TEMPLATE(void gemm_batch<float>(std::span<const GemmProblem<float>>));
ESP_COMPILED_TEMPLATE(void gemm_batch<bf16>(std::span<const GemmProblem<bf16>>));
ESP_COMPILED_TEMPLATE(void gemm_batch<double>(std::span<const GemmProblem<double>>));

/// C = alpha * A B + beta * C. With `b.transposed`, b is a weight [n, k] and C = A bᵀ.
template <FloatElement T>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView a, MatrixView b, T* c,
          std::int64_t stride_c, acc_t<T> alpha = 1, acc_t<T> beta = 0) {
  const GemmProblem<T> problem{m, n, k, a, b, c, stride_c, alpha, beta};
  gemm_batch<T>(std::span<const GemmProblem<T>>(&problem, 1));
}

}  // namespace espalier::cpu
