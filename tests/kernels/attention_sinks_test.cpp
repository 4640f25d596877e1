// SPDX-License-Identifier: Apache-2.0
// The kernels of attention sinks behind those of attention, against the double-precision reference.
#include <espalier/kernels/attention_sinks.cuh>

#include "attention_cases.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

using Bf16 = __nv_bfloat16;
using F16 = __half;

/// Attention, then the sinks; attention's gradient, then that of the sinks.
template <class T>
void check_sinks(const AttentionProblem& c) {
  CAPTURE(c.offsets, c.heads, c.kv_heads, c.head_dim, c.window);
  const std::int64_t n = c.rows(), of_q = n * c.heads * c.head_dim,
                     of_k = n * c.kv_heads * c.head_dim;
  const auto q = normal_as<T>(of_q, 1), k = normal_as<T>(of_k, 2), v = normal_as<T>(of_k, 3),
             dy = normal_as<T>(of_q, 4);
  const auto sinks = normal_as<float>(c.heads, 5);
  const auto want = reference::attention(q, k, v, c.reference(), sinks);
  const auto grads = reference::attention_backward(dy, q, k, v, c.reference(), sinks);
  // y is rounded to T a second time.
  const double rtol = kernel_tol<T>(c.head_dim), twice = 2 * rtol;
  same_in_every_schedule([&] {
    Buffer<T> bq(q), bk(k), bv(v), bdy(dy), y(of_q), dq(of_q), dk(of_k), dv(of_k);
    Buffer<float> log_sum(n * c.heads), dots(n * c.heads), bs(sinks), ds(c.heads);
    Buffer<T> narrow(c.heads);
    const auto segments = packed<T>(c, bk.data(), bv.data());
    REQUIRE(kernels::attention_plain_forward<T>(y.data(), log_sum.data(), bq.data(),
                                                segments.data(), c.sizes(),
                                                nullptr) == cudaSuccess);
    REQUIRE(kernels::attention_sinks(y.data(), log_sum.data(), bs.data(), {n, c.heads, c.head_dim},
                                     nullptr) == cudaSuccess);
    require_close(y, want, twice, twice);
    REQUIRE(kernels::attention_plain_backward<T>({dq.data(), dk.data(), dv.data(), dots.data(),
                                                  bdy.data(), y.data(), log_sum.data(), bq.data()},
                                                 segments.data(), c.sizes(),
                                                 nullptr) == cudaSuccess);
    REQUIRE(kernels::attention_sinks_backward(ds.data(), dots.data(), log_sum.data(), bs.data(), n,
                                              c.heads, nullptr) == cudaSuccess);
    REQUIRE(kernels::attention_sinks_backward(narrow.data(), dots.data(), log_sum.data(), bs.data(),
                                              n, c.heads, nullptr) == cudaSuccess);
    require_close(dq, grads.dq, twice, 8 * rtol);
    require_close(dk, grads.dk, twice, 32 * rtol);
    require_close(dv, grads.dv, twice, 32 * rtol);
    require_close(ds, grads.dsinks, twice, 32 * rtol);
    require_close(narrow, grads.dsinks, twice, 32 * rtol);
    REQUIRE((y.guarded() && log_sum.guarded() && ds.guarded() && narrow.guarded()));
    return y.bytes() + log_sum.bytes() + ds.bytes();
  });
}

}  // namespace

TEMPLATE_TEST_CASE("attention sinks kernels: forward and backward follow the reference",
                   "[kernels][attention]", float, Bf16, F16) {
  check_sinks<TestType>({{0, 0}, 2, 1, 8, 0});
  check_sinks<TestType>({{0, 1}, 1, 1, 1, 0});
  check_sinks<TestType>({{0, 9, 9, 20}, 4, 2, 33, 0});
  check_sinks<TestType>({{0, 5, 19}, 3, 3, 64, 4});
}

TEST_CASE("attention sinks kernels: more rows than a block has threads", "[kernels][attention]") {
  const std::int64_t n = 700, heads = 2;
  const auto dot = normal_as<float>(n * heads, 1), lse = normal_as<float>(n * heads, 2);
  const std::vector<double> sinks = {-1, 0.5};
  std::vector<double> want(2, 0.0);
  for (std::int64_t i = 0; i < n * heads; ++i) {
    want[i % 2] -= std::exp(sinks[i % 2] - lse[i]) * dot[i];
  }
  same_in_every_schedule([&] {
    Buffer<float> d(heads), bd(dot), bl(lse), bs(sinks);
    REQUIRE(kernels::attention_sinks_backward(d.data(), bd.data(), bl.data(), bs.data(), n, heads,
                                              nullptr) == cudaSuccess);
    require_close(d, want, tol(DType::f32, n), std::sqrt(double(n)) * tol(DType::f32, 1));
    REQUIRE(d.guarded());
    return d.bytes();
  });
}

TEST_CASE("attention sinks kernels: a sink of minus infinity changes no bit",
          "[kernels][attention]") {
  const auto y = normal_as<Bf16>(3 * 2 * 16, 1), lse = normal_as<float>(6, 2);
  Buffer<Bf16> by(y);
  Buffer<float> bl(lse), bs(std::vector<double>(2, -std::numeric_limits<double>::infinity()));
  REQUIRE(kernels::attention_sinks(by.data(), bl.data(), bs.data(), {3, 2, 16}, nullptr) ==
          cudaSuccess);
  REQUIRE(by.values() == y);
  REQUIRE(bl.values() == lse);
}
