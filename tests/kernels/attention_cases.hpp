// SPDX-License-Identifier: Apache-2.0
// What every implementation of attention is tried on. An implementation is a struct with the type T
// of its elements, the multiple kAlign and the most kWidest that a head_dim must be of, forward and
// backward.
#pragma once

#include <espalier/kernels/attention.cuh>

#include <espalier/ops/reference/attention.hpp>

#include "cases.hpp"

namespace espalier::test {

template <class Element>
struct Plain {
  using T = Element;
  static constexpr int kAlign = 1, kWidest = 256;
  template <class... P>
  static cudaError_t forward(P... p) {
    return kernels::attention_plain_forward<T>(p...);
  }
  template <class... P>
  static cudaError_t backward(const kernels::AttentionGradients<T>& g, P... p) {
    return kernels::attention_plain_backward<T>(g, p...);
  }
};

/// With tiles of that many packed rows forward.
template <class Element, int kRows = kernels::kForwardRows>
struct Mma {
  using T = Element;
  static constexpr int kAlign = 8, kWidest = 128;
  template <class... P>
  static cudaError_t forward(P... p) {
    return kernels::attention_mma_forward_tiles<kRows, T>(p...);
  }
  template <class... P>
  static cudaError_t backward(const kernels::AttentionGradients<T>& g, P... p) {
    return kernels::attention_mma_backward<T>(g, p...);
  }
};

struct AttentionProblem {
  std::vector<std::int64_t> offsets;
  int heads, kv_heads, head_dim;
  std::int64_t window;

  std::int64_t rows() const { return offsets.back(); }
  reference::AttentionSizes reference() const {
    return {heads, kv_heads, head_dim, offsets, window};
  }
  kernels::AttentionSizes sizes() const {
    return {rows(), static_cast<int>(offsets.size()) - 1, heads, kv_heads, head_dim, window};
  }
};

/// Segments with their own keys, packed like the queries.
template <class T>
DeviceVector<kernels::AttentionSegment<T>> packed(const AttentionProblem& c, const T* k,
                                                  const T* v) {
  DeviceVector<kernels::AttentionSegment<T>> list;
  const std::int64_t stride = c.kv_heads * c.head_dim;
  for (std::size_t s = 0; s + 1 < c.offsets.size(); ++s) {
    const std::int64_t at = c.offsets[s], rows = c.offsets[s + 1] - at;
    list.push_back({k + at * stride, v + at * stride, at, rows, rows});
  }
  return list;
}

/// Logarithms of the sums of exponentiated scores [N, A].
inline std::vector<double> log_sums(const std::vector<double>& q, const std::vector<double>& k,
                                    const AttentionProblem& c) {
  std::vector<double> of;
  const std::int64_t p = c.head_dim, group = c.heads / c.kv_heads;
  for (std::size_t s = 0; s + 1 < c.offsets.size(); ++s) {
    for (std::int64_t i = c.offsets[s]; i < c.offsets[s + 1]; ++i) {
      const std::int64_t first =
          c.window > 0 ? std::max(c.offsets[s], i - c.window + 1) : c.offsets[s];
      for (std::int64_t a = 0; a < c.heads; ++a) {
        double sum = 0;
        for (std::int64_t j = first; j <= i; ++j) {
          double score = 0;
          for (std::int64_t x = 0; x < p; ++x) {
            score += q[(i * c.heads + a) * p + x] * k[(j * c.kv_heads + a / group) * p + x];
          }
          sum += std::exp(score / std::sqrt(double(p)));
        }
        of.push_back(std::log(sum));
      }
    }
  }
  return of;
}

/// Forward and backward of an implementation against the reference, the same bits in every
/// schedule.
template <class Impl>
void check_attention(AttentionProblem c) {
  using T = typename Impl::T;
  c.head_dim =
      std::min(Impl::kWidest, (c.head_dim + Impl::kAlign - 1) / Impl::kAlign * Impl::kAlign);
  CAPTURE(c.offsets, c.heads, c.kv_heads, c.head_dim, c.window);
  const std::int64_t n = c.rows(), of_q = n * c.heads * c.head_dim,
                     of_k = n * c.kv_heads * c.head_dim;
  const auto q = normal_as<T>(of_q, 1), k = normal_as<T>(of_k, 2), v = normal_as<T>(of_k, 3),
             dy = normal_as<T>(of_q, 4);
  const auto want = reference::attention(q, k, v, c.reference());
  const auto lse = log_sums(q, k, c);
  const auto grads = reference::attention_backward(dy, q, k, v, c.reference());
  const double rtol = kernel_tol<T>(c.head_dim);
  same_in_every_schedule([&] {
    Buffer<T> bq(q), bk(k), bv(v), bdy(dy), y(of_q), dq(of_q), dk(of_k), dv(of_k);
    Buffer<float> log_sum(n * c.heads), dots(n * c.heads);
    const auto segments = packed<T>(c, bk.data(), bv.data());
    REQUIRE(Impl::forward(y.data(), log_sum.data(), bq.data(), segments.data(), c.sizes(),
                          nullptr) == cudaSuccess);
    require_close(y, want, rtol, rtol);
    require_close(log_sum, lse, kernel_tol<float>(c.head_dim), kernel_tol<float>(64));
    // The reference's y, so that only the backward pass is on trial.
    Buffer<T> exact_y(want);
    REQUIRE(Impl::backward({dq.data(), dk.data(), dv.data(), dots.data(), bdy.data(),
                            exact_y.data(), log_sum.data(), bq.data()},
                           segments.data(), c.sizes(), nullptr) == cudaSuccess);
    require_close(dq, grads.dq, rtol, 4 * rtol);
    require_close(dk, grads.dk, rtol, 16 * rtol);
    require_close(dv, grads.dv, rtol, 16 * rtol);
    REQUIRE((log_sum.guarded() && dots.guarded()));
    return y.bytes() + dq.bytes() + dk.bytes() + dv.bytes();
  });
}

}  // namespace espalier::test
