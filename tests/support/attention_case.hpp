// SPDX-License-Identifier: Apache-2.0
// A problem of attention with values that a type holds exactly, and what our op makes of it.
#pragma once

#include <espalier/ops/attention.hpp>
#include <espalier/ops/reference/attention.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/make_tensor.hpp"

namespace espalier::test {

struct AttentionCase {
  reference::AttentionSizes z;
  std::int64_t n = z.segments.back();
  std::vector<double> q{}, k{}, v{}, dy{};

  Shape q_shape() const { return {n, z.heads, z.head_dim}; }
  Shape kv_shape() const { return {n, z.kv_heads, z.head_dim}; }
};

/// Queries and keys of standard deviation `scale`.
template <class T>
AttentionCase attention_case(const reference::AttentionSizes& z, double scale = 1) {
  AttentionCase c{z};
  c.q = normal_of<T>(c.q_shape().numel(), 1, scale);
  c.k = normal_of<T>(c.kv_shape().numel(), 2, scale);
  c.v = normal_of<T>(c.kv_shape().numel(), 3);
  c.dy = normal_of<T>(c.q_shape().numel(), 4);
  return c;
}

struct AttentionOutcome {
  AnyTensor y, dq, dk, dv;

  std::vector<AnyTensor> all() const { return {y, dq, dk, dv}; }
};

template <class T>
AttentionOutcome run_attention(const AttentionCase& c) {
  const auto q = parameter(make_tensor<T>(c.q_shape(), c.q));
  const auto k = parameter(make_tensor<T>(c.kv_shape(), c.k));
  const auto v = parameter(make_tensor<T>(c.kv_shape(), c.v));
  const auto y = attention(q, k, v, c.z.segments, c.z.window);
  backward(y, make_tensor<T>(c.q_shape(), c.dy));
  return {y.value(), q.grad(), k.grad(), v.grad()};
}

/// A key's gradient sums up to `longest` rows of each head that shares it, each a sum of P terms.
/// bf16 is computed as f32 and rounded once, but the gradient starts from the rounded y.
template <class T>
void check_attention(const AttentionCase& c) {
  std::int64_t longest = 1;
  for (std::size_t s = 0; s + 1 < c.z.segments.size(); ++s) {
    longest = std::max(longest, c.z.segments[s + 1] - c.z.segments[s]);
  }
  const AttentionOutcome got = run_attention<T>(c);
  const auto grads = reference::attention_backward(c.dy, c.q, c.k, c.v, c.z);
  const double t = 2 * tol(dtype_of<acc_t<T>>::value, c.z.head_dim + longest);
  const double once = sizeof(T) == 2 ? tol(dtype_of<T>::value, 1) : 0;
  const double shared = std::sqrt(static_cast<double>(c.z.heads / c.z.kv_heads));
  const double rtol = t + once, atol = 4 * t + once;
  const Mismatch y = compare(to_vector(got.y), reference::attention(c.q, c.k, c.v, c.z), t, rtol);
  const Mismatch dq = compare(to_vector(got.dq), grads.dq, atol, rtol);
  const Mismatch dk = compare(to_vector(got.dk), grads.dk, atol * shared, rtol);
  const Mismatch dv = compare(to_vector(got.dv), grads.dv, atol * shared, rtol);
  INFO("y: " << y << "; dq: " << dq << "; dk: " << dk << "; dv: " << dv);
  REQUIRE(y.count == 0);
  REQUIRE(dq.count == 0);
  REQUIRE(dk.count == 0);
  REQUIRE(dv.count == 0);
}

}  // namespace espalier::test
