// SPDX-License-Identifier: Apache-2.0
// What holds of the bits of attention across launches and tiles, which implementation a call takes,
// and index arithmetic beyond 2^31 elements.
#include <algorithm>

#include "attention_cases.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

using Bf16 = __nv_bfloat16;
using F16 = __half;

/// The bits of y and log_sum of an implementation.
template <class Impl>
std::string forward_bits(
    const AttentionProblem& c, const Buffer<typename Impl::T>& q,
    const DeviceVector<kernels::AttentionSegment<typename Impl::T>>& segments) {
  Buffer<typename Impl::T> y(c.rows() * c.heads * c.head_dim);
  Buffer<float> log_sum(c.rows() * c.heads);
  auto sizes = c.sizes();
  sizes.segments = static_cast<int>(segments.size());
  REQUIRE(Impl::forward(y.data(), log_sum.data(), q.data(), segments.data(), sizes, nullptr) ==
          cudaSuccess);
  REQUIRE((y.guarded() && log_sum.guarded()));
  return y.bytes() + log_sum.bytes();
}

}  // namespace

TEMPLATE_TEST_CASE("attention: rows that continue a cache have the bits of the whole pass",
                   "[kernels][attention]", Plain<float>, Mma<Bf16>,
                   (Mma<Bf16, kernels::kFewRows>)) {
  using T = typename TestType::T;
  const auto window = GENERATE(0, 5, 70);
  const bool plain = TestType::kAlign == 1;  // has no tiles to cross
  const std::vector<std::int64_t> rows_of =
      plain ? std::vector<std::int64_t>{1, 9, 0, 3} : std::vector<std::int64_t>{1, 63, 0, 1, 76};
  const AttentionProblem c{{0, plain ? 13 : 141}, 4, 2, 16, window};
  const Buffer<T> q(normal_as<T>(c.rows() * 64, 1)), k(normal_as<T>(c.rows() * 32, 2)),
      v(normal_as<T>(c.rows() * 32, 3));
  const std::string whole = forward_bits<TestType>(c, q, packed<T>(c, k.data(), v.data()));
  DeviceVector<kernels::AttentionSegment<T>> parts;
  std::int64_t at = 0;
  for (const std::int64_t rows : rows_of) {
    parts.push_back({k.data(), v.data(), at, rows, at + rows});
    at += rows;
  }
  const bool same = forward_bits<TestType>(c, q, parts) == whole;
  REQUIRE(same);
  if constexpr (TestType::kAlign > 1) {  // nor do they depend on the tiles
    const bool same_in_other_tiles = forward_bits<Mma<T>>(c, q, parts) == whole;
    REQUIRE(same_in_other_tiles);
  }
}

TEMPLATE_TEST_CASE("attention: gradients of a segment do not depend on the others",
                   "[kernels][attention]", Mma<F16>) {
  using T = typename TestType::T;
  const AttentionProblem both{{0, 37, 75}, 2, 1, 16, 0}, second{{0, 38}, 2, 1, 16, 0};
  const Buffer<T> q(normal_as<T>(75 * 32, 1)), k(normal_as<T>(75 * 16, 2)),
      v(normal_as<T>(75 * 16, 3)), y(normal_as<T>(75 * 32, 4)), dy(normal_as<T>(75 * 32, 5));
  const Buffer<float> log_sum(std::vector<double>(75 * 2, 3.0));
  const auto run = [&](const AttentionProblem& c, std::int64_t from) {
    Buffer<T> dq(c.rows() * 32), dk(c.rows() * 16), dv(c.rows() * 16);
    Buffer<float> dots(c.rows() * 2);
    const auto segments = packed<T>(c, k.data() + from * 16, v.data() + from * 16);
    REQUIRE(
        TestType::backward({dq.data(), dk.data(), dv.data(), dots.data(), dy.data() + from * 32,
                            y.data() + from * 32, log_sum.data() + from * 2, q.data() + from * 32},
                           segments.data(), c.sizes(), nullptr) == cudaSuccess);
    const std::size_t skip = (c.rows() - 38) * 16 * sizeof(T);
    return dq.bytes().substr(2 * skip) + dk.bytes().substr(skip) + dv.bytes().substr(skip);
  };
  const bool same = run(both, 0) == run(second, 37);
  REQUIRE(same);
}

#ifndef ESP_ON_GPU  // nobody counts the launches there
TEST_CASE("attention: the implementation is chosen by type, head_dim and alignment",
          "[kernels][attention]") {
  const auto uses_mma = [](int p, std::int64_t offset, auto zero) {
    using T = decltype(zero);
    const AttentionProblem c{{0, 3}, 2, 1, p, 0};
    Buffer<T> q(normal_as<T>(3 * 2 * p, 1), offset), k(normal_as<T>(3 * p, 2)),
        v(normal_as<T>(3 * p, 3)), y(3 * 2 * p), dq(3 * 2 * p), dk(3 * p), dv(3 * p);
    Buffer<float> log_sum(3 * 2), dots(3 * 2);
    const auto segments = packed<T>(c, k.data(), v.data());
    simulator::g_log.kernels.clear();
    REQUIRE(kernels::attention_forward(y.data(), log_sum.data(), std::as_const(q).data(),
                                       segments.data(), c.sizes(), nullptr) == cudaSuccess);
    REQUIRE(kernels::attention_backward<T>({dq.data(), dk.data(), dv.data(), dots.data(), y.data(),
                                            y.data(), log_sum.data(), q.data()},
                                           segments.data(), c.sizes(), nullptr) == cudaSuccess);
    const std::size_t launches = simulator::g_log.kernels.size();
    REQUIRE((launches == 3 || launches == 4));
    return launches == 4;
  };
  REQUIRE(uses_mma(64, 0, Bf16()));
  REQUIRE(uses_mma(8, 0, F16()));
  REQUIRE_FALSE(uses_mma(64, 0, 0.0f));
  REQUIRE_FALSE(uses_mma(12, 0, Bf16()));
  REQUIRE_FALSE(uses_mma(136, 0, Bf16()));
  REQUIRE_FALSE(uses_mma(64, 1, Bf16()));
}
#endif

TEMPLATE_TEST_CASE("attention: more than 2^31 elements", "[kernels][attention]", Plain<F16>,
                   Mma<F16>) {
  // Three rows beyond 2^31 elements of q and y, at the end of as long a cache.
  constexpr std::int64_t kRow = (std::int64_t{1} << 25) + 5, kKeys = (std::int64_t{1} << 25) + 7;
  const AttentionProblem c{{0, 10}, 1, 1, 64, 8};  // its last three rows
  const auto q = normal_as<F16>(10 * 64, 1), k = normal_as<F16>(10 * 64, 2),
             v = normal_as<F16>(10 * 64, 3);
  const auto want = reference::attention(q, k, v, c.reference());
  const std::vector<double> last(want.end() - 3 * 64, want.end());
  SparseMemory all_q((kRow + 3) * 128), all_y((kRow + 3) * 128), all_k(kKeys * 128),
      all_v(kKeys * 128);
  const auto fill = [](F16* to, const std::vector<double>& from) {
    for (const double x : from) *to++ = kernels::from_float<F16>(static_cast<float>(x));
  };
  fill(all_q.as<F16>() + kRow * 64, {q.end() - 3 * 64, q.end()});
  fill(all_k.as<F16>() + (kKeys - 10) * 64, k);
  fill(all_v.as<F16>() + (kKeys - 10) * 64, v);
  const DeviceVector<kernels::AttentionSegment<F16>> segment{
      {all_k.as<F16>(), all_v.as<F16>(), kRow, 3, kKeys}};
  auto sizes = c.sizes();
  sizes.rows = 3;
  if (TestType::kAlign == 1) sizes.rows = kRow + 3;
  const simulator::OnlyLastBlock only;
  REQUIRE(TestType::forward(all_y.as<F16>(), static_cast<float*>(nullptr), all_q.as<const F16>(),
                            segment.data(), sizes, nullptr) == cudaSuccess);
  Buffer<F16> y(3 * 64);
  std::copy_n(all_y.as<F16>() + kRow * 64, 3 * 64, y.data());
  require_close(y, last, kernel_tol<F16>(64), kernel_tol<F16>(64));
}
