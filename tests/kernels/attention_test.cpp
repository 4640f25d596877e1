// SPDX-License-Identifier: Apache-2.0
// The plain attention kernels against the double-precision reference, under every schedule.
#include <espalier/kernels/attention.cuh>

#include <espalier/ops/reference/attention.hpp>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

template <class T>
struct Segments {
  DeviceVector<kernels::AttentionSegment<T>> list;

  Segments(const std::vector<std::int64_t>& offsets, const T* k, const T* v, std::int64_t stride) {
    for (std::size_t s = 0; s + 1 < offsets.size(); ++s) {
      const std::int64_t rows = offsets[s + 1] - offsets[s];
      list.push_back({k + offsets[s] * stride, v + offsets[s] * stride, offsets[s], rows, rows});
    }
  }
};

struct Case {
  std::vector<std::int64_t> offsets;
  int heads, kv_heads, head_dim;
  std::int64_t window;
};

}  // namespace

TEMPLATE_TEST_CASE("attention kernels: forward and backward follow the reference",
                   "[kernels][attention]", float, __nv_bfloat16, __half) {
  using T = TestType;
  const Case c =
      GENERATE(Case{{0, 0}, 2, 1, 8, 0}, Case{{0, 1}, 1, 1, 1, 0}, Case{{0, 9, 9, 20}, 4, 2, 33, 0},
               Case{{0, 5, 19}, 3, 3, 64, 4}, Case{{0, 11}, 2, 1, 130, 1});
  const std::int64_t n = c.offsets.back(), p = c.head_dim;
  CAPTURE(n, c.heads, c.kv_heads, c.head_dim, c.window);
  const auto q = normal_as<T>(n * c.heads * p, 1), k = normal_as<T>(n * c.kv_heads * p, 2),
             v = normal_as<T>(n * c.kv_heads * p, 3), dy = normal_as<T>(n * c.heads * p, 4);
  const reference::AttentionSizes of{c.heads, c.kv_heads, p, c.offsets, c.window};
  const auto want = reference::attention(q, k, v, of);
  const auto grads = reference::attention_backward(dy, q, k, v, of);
  const double rtol = kernel_tol<T>(64);
  same_in_every_schedule([&] {
    Buffer<T> bq(q), bk(k), bv(v), bdy(dy);
    Buffer<T> y(n * c.heads * p), dq(n * c.heads * p), dk(n * c.kv_heads * p),
        dv(n * c.kv_heads * p);
    Buffer<float> log_sum(n * c.heads), dots(n * c.heads);
    const Segments<T> segments(c.offsets, bk.data(), bv.data(), c.kv_heads * p);
    const kernels::AttentionSizes sizes{
        n, static_cast<int>(segments.list.size()), c.heads, c.kv_heads, c.head_dim, c.window};
    REQUIRE(kernels::attention_forward(y.data(), log_sum.data(), bq.data(), segments.list.data(),
                                       sizes, nullptr) == cudaSuccess);
    require_close(y, want, rtol, rtol);
    // The reference's y, so that only the backward pass is on trial.
    Buffer<T> exact_y(want);
    REQUIRE(kernels::attention_backward(dq.data(), dk.data(), dv.data(), dots.data(), bdy.data(),
                                        exact_y.data(), log_sum.data(), bq.data(),
                                        segments.list.data(), sizes, nullptr) == cudaSuccess);
    require_close(dq, grads.dq, rtol, 4 * rtol);
    require_close(dk, grads.dk, rtol, 16 * rtol);
    require_close(dv, grads.dv, rtol, 16 * rtol);
    REQUIRE((log_sum.guarded() && dots.guarded()));
    return y.bytes() + dq.bytes() + dk.bytes() + dv.bytes();
  });
}

TEST_CASE("attention kernel: a row that continues a cache has the bits of the whole pass",
          "[kernels][attention]") {
  const int heads = 4, kv_heads = 2, p = 16;
  const std::int64_t n = 13;
  Buffer<float> q(normal_as<float>(n * heads * p, 1)), k(normal_as<float>(n * kv_heads * p, 2)),
      v(normal_as<float>(n * kv_heads * p, 3)), whole(n * heads * p), last(heads * p);
  const DeviceVector<kernels::AttentionSegment<float>> all{{k.data(), v.data(), 0, n, n}};
  const DeviceVector<kernels::AttentionSegment<float>> one{{k.data(), v.data(), 0, 1, n}};
  REQUIRE(kernels::attention_forward(whole.data(), static_cast<float*>(nullptr), q.data(),
                                     all.data(), {n, 1, heads, kv_heads, p, 5},
                                     nullptr) == cudaSuccess);
  REQUIRE(kernels::attention_forward(last.data(), static_cast<float*>(nullptr),
                                     q.data() + (n - 1) * heads * p, one.data(),
                                     {1, 1, heads, kv_heads, p, 5}, nullptr) == cudaSuccess);
  REQUIRE(whole.bytes().substr((n - 1) * heads * p * sizeof(float)) == last.bytes());
}

TEST_CASE("attention kernel: a NaN key reaches the rows that see it", "[kernels][attention]") {
  const std::int64_t n = 4;
  auto keys = normal_as<float>(n * 8, 2);
  keys[2 * 8] = NAN;
  Buffer<float> q(normal_as<float>(n * 8, 1)), k(keys), v(normal_as<float>(n * 8, 3)), y(n * 8);
  const DeviceVector<kernels::AttentionSegment<float>> all{{k.data(), v.data(), 0, n, n}};
  REQUIRE(kernels::attention_forward(y.data(), static_cast<float*>(nullptr), q.data(), all.data(),
                                     {n, 1, 1, 1, 8, 0}, nullptr) == cudaSuccess);
  REQUIRE(std::isfinite(y[8]));
  REQUIRE(std::isnan(y[2 * 8]));
  REQUIRE(std::isnan(y[3 * 8]));
}

TEST_CASE("attention kernel: a head that is too wide is refused", "[kernels][attention]") {
  REQUIRE(kernels::attention_forward<float>(nullptr, nullptr, nullptr, nullptr,
                                            {1, 1, 1, 1, 257, 0},
                                            nullptr) == cudaErrorInvalidValue);
}
