// SPDX-License-Identifier: Apache-2.0
// Attention sinks: one learned logit per query head that joins the sum in the softmax's denominator
// and has no value, as in gpt-oss. Applied to what attention.hpp gives, y and L = log-sum-exp:
//   y' = y / (1 + exp(sink - L))        L' = log(exp(L) + exp(sink))
// attention_backward, given y' and L', makes dq, dk and dv, and in its workspace dot = <dy, y'>:
//   dsink = -sum over the rows of exp(sink - L') dot
//   y [N, A, P]   log_sum, dot [N, A]   sinks [A] in f32
// f32 throughout, y rounded to T once more; no atomics: the same bits in every run.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

struct AttentionSinkSizes {
  std::int64_t rows, heads, head_dim;  // N, A, P
};

/// y is read and written, log_sum too.
constexpr double attention_sinks_bytes(const AttentionSinkSizes& s, int element_bytes) {
  return 2.0 * double(s.rows) * double(s.heads) * (double(s.head_dim) * element_bytes + 4.0);
}

/// In place.
template <class T>
cudaError_t attention_sinks(T* y, float* log_sum, const float* sinks,
                            const AttentionSinkSizes& sizes, cudaStream_t stream);

/// dsinks [A]; log_sum is the one that attention_sinks left.
template <class S>
cudaError_t attention_sinks_backward(S* dsinks, const float* dot, const float* log_sum,
                                     const float* sinks, std::int64_t rows, std::int64_t heads,
                                     cudaStream_t stream);

}  // namespace espalier::kernels
