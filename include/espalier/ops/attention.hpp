// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) over packed sequences.
//   q, y [N, A, P]   k, v [N, G, P]   query head a reads kv head a / (A / G)   scale P^-1/2
// Each segment is causal on its own; with a window a row sees its last `window` keys. Saves q, k,
// v, y and the log of each softmax sum; backward recomputes the weights (Dao et al. 2022,
// arXiv:2205.14135).
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/ops/cpu/attention.hpp>
#include <espalier/ops/cpu/attention_backward.hpp>

namespace espalier {

struct CausalAttention {
  static constexpr const char* kName = "attention";
  std::vector<std::int64_t> segments;  // S + 1 offsets into N
  std::int64_t window = 0;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& q, const Tensor<T, D>& k,
                       const Tensor<T, D>& v) const {
    static_assert(!D::is_cuda, "attention: no CUDA path");
    check(q.shape(), k.shape(), v.shape());
    const cpu::AttentionHeads h = heads(q.shape(), k.shape());
    Tensor<T, D> y(q.shape());
    Tensor<acc_t<T>, D> log_sum(Shape{q.shape(0), h.heads});
    std::vector<cpu::AttentionSegment<T>> work;
    for (std::size_t s = 0; s + 1 < segments.size(); ++s) {
      const std::int64_t at = segments[s], rows = segments[s + 1] - at;
      work.push_back({q.data() + at * h.q_stride(), k.data() + at * h.kv_stride(),
                      v.data() + at * h.kv_stride(), y.data() + at * h.q_stride(), rows, rows,
                      log_sum.data() + at * h.heads});
    }
    cpu::attention_forward<T>(work, h);
    saved.tensors = {q, k, v, y, log_sum};
    return y;
  }

  template <FloatElement T, Device D>
  std::array<AnyTensor, 3> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const auto q = saved.get<T, D>(0), k = saved.get<T, D>(1), v = saved.get<T, D>(2),
               y = saved.get<T, D>(3);
    const auto log_sum = saved.get<acc_t<T>, D>(4);
    const cpu::AttentionHeads h = heads(q.shape(), k.shape());
    const Tensor<T, D> dq(q.shape()), dk(k.shape()), dv(v.shape());
    std::vector<cpu::AttentionBackwardSegment<T>> work;
    for (std::size_t s = 0; s + 1 < segments.size(); ++s) {
      const std::int64_t at = segments[s], rows = segments[s + 1] - at;
      const std::int64_t on_q = at * h.q_stride(), on_kv = at * h.kv_stride();
      work.push_back({q.data() + on_q, k.data() + on_kv, v.data() + on_kv, y.data() + on_q,
                      dy.data() + on_q, log_sum.data() + at * h.heads, dq.data() + on_q,
                      dk.data() + on_kv, dv.data() + on_kv, rows});
    }
    cpu::attention_backward<T>(work, h);
    return {dq, dk, dv};
  }

  /// @throws ShapeError when heads, rows or segments do not fit.
  void check(const Shape& q, const Shape& k, const Shape& v) const {
    ESP_REQUIRE(q.rank() == 3 && k.rank() == 3 && k == v && q[0] == k[0] && q[2] == k[2],
                ShapeError, kName, ": q is ", q, ", k is ", k, ", v is ", v,
                "; expected [N, A, P] and twice [N, G, P]");
    ESP_REQUIRE(k[1] > 0 && q[1] % k[1] == 0, ShapeError, kName, ": ", q[1], " query heads, ", k[1],
                " kv heads; expected a multiple");
    ESP_REQUIRE(!segments.empty() && segments.front() == 0 && segments.back() == q[0], ShapeError,
                kName, ": segments end at ", segments.empty() ? 0 : segments.back(), ", q has ",
                q[0], " rows");
    for (std::size_t s = 0; s + 1 < segments.size(); ++s) {
      ESP_REQUIRE(segments[s] <= segments[s + 1], ShapeError, kName, ": segments fall from ",
                  segments[s], " to ", segments[s + 1]);
    }
    ESP_REQUIRE(window >= 0, ShapeError, kName, ": window is ", window, ", expected at least 0");
  }

 private:
  cpu::AttentionHeads heads(const Shape& q, const Shape& k) const {
    return {q[1], k[1], q[2], window};
  }
};

/// @throws ShapeError when heads, rows or segments do not fit.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> attention(const Var<T, D>& q, const Var<T, D>& k, const Var<T, D>& v,
                                  const std::vector<std::int64_t>& segments,
                                  std::int64_t window = 0) {
  return apply(CausalAttention{segments, window}, q, k, v);
}

}  // namespace espalier
