// SPDX-License-Identifier: Apache-2.0
// Attention sinks on the CPU: one learned logit per query head that joins the sum in the softmax's
// denominator and has no value, as in gpt-oss; a logit of 0 is the zero sink of Xiao et al. 2023,
// arXiv:2309.17453. Applied to the output y and log-sum-exp L of attention without sinks:
//   y' = y / (1 + exp(sink - L))        L' = log(exp(L) + exp(sink))
// The gradient of attention, started from y' and L', gives dq, dk and dv. With the sink's weight
// p = exp(sink - L'):   dsink = -sum over the rows of p <dy, y'>
// Sums over rows in double, in chunks of a fixed size, added in order: the same bits for any number
// of threads.    y, dy [N, A, P]   log_sum [N, A]   sinks [A]
#pragma once

#include <vector>

#include <espalier/core/math.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/attention.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier::cpu {

namespace detail {
template <std::floating_point A>
Tensor<A> widened_sinks(const AnyTensor& sinks, const AttentionHeads& h) {
  ESP_REQUIRE(sinks.shape() == Shape{h.heads}, ShapeError, "attention: sinks is ", sinks.shape(),
              ", expected [", h.heads, "], one for each query head");
  return sinks.dtype() == dtype_of<A>::value ? Tensor<A>(sinks) : converted<A>(sinks);
}

/// log(exp(a) + exp(b)); a where b is -inf.
template <std::floating_point A>
A log_add_exp(A a, A b) {
  return b <= a ? a + math::log(1 + math::exp(b - a)) : b + math::log(1 + math::exp(a - b));
}

inline constexpr std::int64_t kSinkRows = 64;  // rows of a chunk
}  // namespace detail

/// In place on `rows` rows of y and log_sum, the results of attention_forward. A sink of -inf
/// changes no bit. In a T of 2 bytes y is rounded a second time.
/// @throws ShapeError when sinks is not [A].
template <FloatElement T>
void apply_sinks(T* y, acc_t<T>* log_sum, std::int64_t rows, const AttentionHeads& h,
                 const AnyTensor& sinks) {
  using A = acc_t<T>;
  const Tensor<A> wide = detail::widened_sinks<A>(sinks, h);
  const A* const sink = wide.data();
  const std::int64_t heads = h.heads, p = h.head_dim;
  parallel_for(rows, rows_per_task(h.q_stride()), [=](std::int64_t begin, std::int64_t end) {
    simd::dispatch([=]<int W>() {
      using V = simd::Native<T, W>;
      for (std::int64_t at = begin * heads; at < end * heads; ++at) {
        const A logit = sink[at % heads], log_keys = log_sum[at];
        const V kept(1 / (1 + math::exp(logit - log_keys)));
        T* const of_head = y + at * p;
        simd::for_each_vector<V>(0, p, [=](std::int64_t c, auto lanes) ESP_SIMD_LAMBDA {
          (V::load(of_head + c, lanes) * kept).store(of_head + c, lanes);
        });
        log_sum[at] = detail::log_add_exp(log_keys, logit);
      }
    });
  });
}

/// The gradient [A] of the sinks, in acc_t; y and log_sum are those that apply_sinks left.
template <FloatElement T>
Tensor<acc_t<T>> sinks_gradient(const T* dy, const T* y, const acc_t<T>* log_sum, std::int64_t rows,
                                const AttentionHeads& h, const AnyTensor& sinks) {
  using A = acc_t<T>;
  const Tensor<A> wide = detail::widened_sinks<A>(sinks, h);
  const A* const sink = wide.data();
  const std::int64_t heads = h.heads, p = h.head_dim;
  const std::int64_t chunks = (rows + detail::kSinkRows - 1) / detail::kSinkRows;
  std::vector<double> of_chunk(static_cast<std::size_t>(chunks * heads), 0.0);
  double* const partial = of_chunk.data();
  parallel_for(chunks, 1, [=](std::int64_t begin, std::int64_t end) {
    simd::dispatch([=]<int W>() {
      using V = simd::Native<T, W>;
      for (std::int64_t chunk = begin; chunk < end; ++chunk) {
        const std::int64_t last = std::min((chunk + 1) * detail::kSinkRows, rows) * heads;
        for (std::int64_t at = chunk * detail::kSinkRows * heads; at < last; ++at) {
          const T *y_row = y + at * p, *dy_row = dy + at * p;
          const A dot =
              simd::sum_over<V>(p, [=](std::int64_t c, auto lanes, const V& sum) ESP_SIMD_LAMBDA {
                return fma(V::load(y_row + c, lanes), V::load(dy_row + c, lanes), sum);
              });
          const A weight = math::exp(sink[at % heads] - log_sum[at]);
          partial[chunk * heads + at % heads] -= static_cast<double>(weight * dot);
        }
      }
    });
  });
  const Tensor<A> d(Shape{heads});
  for (std::int64_t a = 0; a < heads; ++a) {
    double sum = 0;
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * heads + a];
    d.data()[a] = static_cast<A>(sum);
  }
  return d;
}

/// Attention of every segment with sinks, as cached decoding calls it; without where `sinks` is
/// empty. Segments without a log_sum get one for the length of the call.
/// @throws ShapeError when sinks is not [A].
template <FloatElement T>
void attention_forward(std::vector<AttentionSegment<T>> segments, const AttentionHeads& h,
                       const AnyTensor& sinks) {
  std::vector<Tensor<acc_t<T>>> log_sums;
  for (auto& s : segments) {
    if (!sinks || s.log_sum) continue;
    log_sums.emplace_back(Shape{s.q_rows, h.heads});
    s.log_sum = log_sums.back().data();
  }
  attention_forward<T>(segments, h);
  if (!sinks) return;
  for (const auto& s : segments) apply_sinks(s.y, s.log_sum, s.q_rows, h, sinks);
}

}  // namespace espalier::cpu
