// SPDX-License-Identifier: Apache-2.0
// What a row of attention may depend on: the keys it sees, and nothing else. Not the other rows of
// the batch, not whether its keys come from a cache, not the number of threads; and no more memory
// than its length asks for.
#include <algorithm>
#include <limits>

#include "support/attention_case.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// Whether row i of [N, heads, P] has the same bits in both.
template <class T>
bool same_row(const AnyTensor& a, const AnyTensor& b, std::int64_t i) {
  return same_bits(a.rows(i, i + 1), b.rows(i, i + 1));
}
bool all_nan(const AnyTensor& t, std::int64_t row) {
  const auto values = to_vector(t.rows(row, row + 1));
  return std::all_of(values.begin(), values.end(), [](double x) { return std::isnan(x); });
}

/// The rows of k and v [N, G, P] in pages of memory of their own, with NaN behind the last row.
template <class T>
class Pages {
 public:
  Pages(const Tensor<T>& k, const Tensor<T>& v) {
    const std::int64_t width = k.numel() / k.shape(0);
    for (std::int64_t row = 0; row < k.shape(0); row += cpu::kPageKeys) {
      const std::int64_t rows = std::min(cpu::kPageKeys, k.shape(0) - row);
      for (const Tensor<T>* from : {&k, &v}) {
        memory_.emplace_back(cpu::kPageKeys * width, static_cast<T>(static_cast<float>(kNan)));
        std::copy_n(from->data() + row * width, rows * width, memory_.back().begin());
      }
      list_.push_back({memory_[memory_.size() - 2].data(), memory_.back().data()});
    }
  }
  /// As many as hold `rows`.
  std::span<const cpu::KeyPage<T>> first(std::int64_t rows) const {
    const std::int64_t count = (rows + cpu::kPageKeys - 1) / cpu::kPageKeys;
    return std::span(list_).first(static_cast<std::size_t>(count));
  }

 private:
  std::vector<std::vector<T>> memory_;
  std::vector<cpu::KeyPage<T>> list_;
};

}  // namespace

TEMPLATE_TEST_CASE("attention: the number of threads changes no bit", "[ops][attention]", float,
                   bf16) {
  const std::int64_t window = GENERATE(0, 100);
  CAPTURE(window);
  const auto c = attention_case<TestType>({6, 2, 16, {0, 150, 150, 601, 603}, window});
  require_same_bits_for_any_threads([&] { return run_attention<TestType>(c).all(); });
}

TEMPLATE_TEST_CASE("attention: packing with other segments changes no bit", "[ops][attention]",
                   float, bf16) {
  const std::int64_t window = GENERATE(0, 33);
  const auto packed = attention_case<TestType>({6, 2, 16, {0, 7, 250, 390}, window});
  AttentionCase alone = packed;
  alone.z.segments = {0, 243}, alone.n = 243;
  const auto cut = [](std::vector<double>& x, std::int64_t width) {
    x = {x.begin() + 7 * width, x.begin() + 250 * width};
  };
  cut(alone.q, 96), cut(alone.dy, 96), cut(alone.k, 32), cut(alone.v, 32);
  const auto many = run_attention<TestType>(packed).all();
  const auto one = run_attention<TestType>(alone).all();
  for (std::size_t i = 0; i < one.size(); ++i) REQUIRE(same_bits(many[i].rows(7, 250), one[i]));
}

TEMPLATE_TEST_CASE("attention: a cache, in pages or not, gives the bits of one pass, in any batch",
                   "[ops][attention]", float, bf16) {
  using T = TestType;
  constexpr std::int64_t kRows = 1600;
  const std::int64_t window = GENERATE(0, 30, 300, 900);
  const std::int64_t head_dim = GENERATE(16, 20);
  const bool paged = GENERATE(false, true);
  CAPTURE(window, head_dim, paged);
  const auto c = attention_case<T>({6, 2, head_dim, {0, kRows}, window});
  const cpu::AttentionHeads heads{6, 2, head_dim, window};
  const auto q = make_tensor<T>(c.q_shape(), c.q);
  const auto k = make_tensor<T>(c.kv_shape(), c.k), v = make_tensor<T>(c.kv_shape(), c.v);
  const Tensor<T> whole(q.shape());
  cpu::attention_forward<T>({{q.data(), k.data(), v.data(), whole.data(), kRows, kRows, nullptr}},
                            heads);
  const Pages<T> pages(k, v);
  const auto segment = [&](const Tensor<T>& y, std::int64_t begin, std::int64_t end) {
    const std::int64_t at = begin * heads.q_stride();
    cpu::AttentionSegment<T> s{q.data() + at, k.data(), v.data(), y.data() + at,
                               end - begin,   end,      nullptr};
    if (paged) s.k = nullptr, s.v = nullptr, s.pages = pages.first(end);
    return s;
  };
  for_each_isa([&] {
    cpu::attention_forward<T>({{q.data(), k.data(), v.data(), whole.data(), kRows, kRows, nullptr}},
                              heads);
    for_each_thread_count([&] {
      // Steps of a generation: a prompt, single tokens, another prompt, a few tokens at a time;
      // then two sequences together with a third.
      const Tensor<T> parts(q.shape()), spare(q.shape());
      std::int64_t done = 0;
      for (const std::int64_t end :
           {5, 6, 7, 96, 97, 100, 101, 356, 767, 768, 769, 770, 772, 790, 1535, 1536, 1537, 1598}) {
        cpu::attention_forward<T>({segment(parts, done, end)}, heads);
        done = end;
      }
      cpu::attention_forward<T>(
          {segment(spare, 0, 300), segment(parts, 1598, 1599), segment(parts, 1599, kRows)}, heads);
      REQUIRE(same_bits(whole, parts));
      REQUIRE(same_bits(whole.rows(0, 300), spare.rows(0, 300)));
    });
  });
}

TEMPLATE_TEST_CASE("attention: NaN in a query spoils its own row only", "[ops][attention]", float,
                   bf16) {
  const auto clean = attention_case<TestType>({2, 1, 8, {0, 100}});
  auto c = clean;
  c.q[20 * 16 + 3] = kNan;  // of the first head
  const auto y = to_vector(run_attention<TestType>(c).y);
  const auto want = to_vector(run_attention<TestType>(clean).y);
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (i / 8 == 40) {
      REQUIRE(std::isnan(y[i]));
    } else {
      REQUIRE(y[i] == want[i]);
    }
  }
}

TEMPLATE_TEST_CASE("attention: NaN in a key or value reaches the rows that see it",
                   "[ops][attention]", float, bf16) {
  const std::int64_t window = GENERATE(0, 40);
  const std::int64_t spoiled = GENERATE(60, 110, 160);  // the second segment is [50, 250)
  const bool in_value = GENERATE(false, true);
  CAPTURE(window, spoiled, in_value);
  const auto clean = attention_case<TestType>({3, 1, 8, {0, 50, 250, 300}, window});
  auto c = clean;
  for (std::int64_t i = 0; i < 8; ++i) (in_value ? c.v : c.k)[spoiled * 8 + i] = kNan;
  for_each_isa([&] {
    const auto y = run_attention<TestType>(c).y, want = run_attention<TestType>(clean).y;
    const std::int64_t end = window > 0 ? std::min<std::int64_t>(250, spoiled + window) : 250;
    for (std::int64_t i = 0; i < c.n; ++i) {
      CAPTURE(i);
      if (spoiled <= i && i < end) {
        REQUIRE(all_nan(y, i));
      } else {
        REQUIRE(same_row<TestType>(y, want, i));
      }
    }
  });
}

TEMPLATE_TEST_CASE("attention: NaN in a gradient reaches the keys of its row", "[ops][attention]",
                   float, bf16) {
  const std::int64_t window = GENERATE(0, 40);
  const std::int64_t spoiled = GENERATE(60, 110, 160);
  CAPTURE(window, spoiled);
  const auto clean = attention_case<TestType>({3, 1, 8, {0, 50, 250, 300}, window});
  auto c = clean;
  for (std::int64_t i = 0; i < 24; ++i) c.dy[spoiled * 24 + i] = kNan;
  const auto got = run_attention<TestType>(c), want = run_attention<TestType>(clean);
  const std::int64_t first = window > 0 ? std::max<std::int64_t>(50, spoiled - window + 1) : 50;
  for (std::int64_t i = 0; i < c.n; ++i) {
    CAPTURE(i);
    REQUIRE((i == spoiled ? all_nan(got.dq, i) : same_row<TestType>(got.dq, want.dq, i)));
    const bool seen = first <= i && i <= spoiled;
    REQUIRE((seen ? all_nan(got.dk, i) : same_row<TestType>(got.dk, want.dk, i)));
    REQUIRE((seen ? all_nan(got.dv, i) : same_row<TestType>(got.dv, want.dv, i)));
  }
}

TEST_CASE("attention: memory grows with the length, not with its square", "[ops][attention]") {
  constexpr std::int64_t kRows = 8192;
  const auto c = attention_case<float>({1, 1, 4, {0, kRows}});
  const std::size_t before = pool_stats().in_use_bytes;
  reset_pool_peak();
  (void)run_attention<float>(c);
  const std::size_t peak = pool_stats().peak_bytes - before;
  REQUIRE(peak < std::size_t{kRows} * 4096);  // an eighth of one matrix of scores
}
