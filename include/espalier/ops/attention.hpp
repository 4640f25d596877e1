// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) over packed sequences.
//   q, y [N, A, P]   k, v [N, G, P]   query head a reads kv head a / (A / G)   scale P^-1/2
// Each segment is causal on its own; with a window a row sees its last `window` keys. Saves q, k,
// v, y and the log of each softmax sum; backward recomputes the weights (Dao et al. 2022,
// arXiv:2205.14135). With sinks [A], each query head has a learned logit that joins the sum in the
// softmax's denominator and has no value (gpt-oss); see ops/cpu/attention_sinks.hpp.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/ops/cpu/attention.hpp>
#include <espalier/ops/cpu/attention_backward.hpp>
#include <espalier/ops/cpu/attention_sinks.hpp>

namespace espalier {

struct CausalAttention {
  static constexpr const char* kName = "attention";
  std::vector<std::int64_t> segments;  // S + 1 offsets into N
  std::int64_t window = 0;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& q, const Tensor<T, D>& k,
                       const Tensor<T, D>& v) const {
    ESP_CPU_ONLY(D, attention, CausalAttention, attention.hpp);
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

  cpu::AttentionHeads heads(const Shape& q, const Shape& k) const {
    return {q[1], k[1], q[2], window};
  }
};

/// Inputs: q, k, v and the sinks [A] of any float type. Saves what CausalAttention does, y and
/// log-sums with the sinks in them, and the sinks.
struct AttentionWithSinks {
  static constexpr const char* kName = "attention";
  CausalAttention causal;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const AnyTensors& in) const {
    ESP_CPU_ONLY(D, attention, AttentionWithSinks, attention.hpp);
    const Tensor<T, D> q(in[0]), k(in[1]), v(in[2]);
    const Tensor<T, D> y = causal.forward(saved, q, k, v);
    cpu::apply_sinks(y.data(), saved.get<acc_t<T>, D>(4).data(), q.shape(0),
                     causal.heads(q.shape(), k.shape()), in[3]);
    saved.tensors.push_back(in[3]);
    return y;
  }

  template <FloatElement T, Device D>
  AnyTensors backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const auto grads = causal.backward(saved, dy);
    AnyTensors all(grads.begin(), grads.end());
    all.emplace_back();
    if (!saved.needs[3]) return all;
    const auto q = saved.get<T, D>(0), y = saved.get<T, D>(3);
    const AnyTensor& sinks = saved.tensors[5];
    const AnyTensor d =
        cpu::sinks_gradient(dy.data(), y.data(), saved.get<acc_t<T>, D>(4).data(), q.shape(0),
                            causal.heads(q.shape(), saved.tensors[1].shape()), sinks);
    visit_dtype<float, double, bf16, f16>(kName, sinks.dtype(), [&]<class S>() {
      all[3] = d.dtype() == sinks.dtype() ? d : AnyTensor(converted<S>(d));
    });
    return all;
  }
};

/// Attention without a gradient, of segments that continue caches.
struct CachedAttention {
  static constexpr const char* kName = "attention";
};

/// Writes `work[s].y` for every segment s. `sinks`: empty, or [A] of any float type.
template <Device D, FloatElement T>
void cached_attention(const std::vector<cpu::AttentionSegment<T>>& work,
                      const cpu::AttentionHeads& heads, const AnyTensor& sinks = {}) {
  const trace::Scope scope(CachedAttention::kName);
  if constexpr (D::is_cuda) {
    static_assert(LaunchedForward<CachedAttention, T, D, std::vector<cpu::AttentionSegment<T>>,
                                  cpu::AttentionHeads, AnyTensor>,
                  "attention on this device: include <espalier/cuda/attention.hpp>, which defines "
                  "Launch<CachedAttention>");
    Launch<CachedAttention, T, D>::forward(work, heads, sinks);
  } else {
    cpu::attention_forward<T>(work, heads, sinks);
  }
}

/// `sinks`: empty, or [A] of any float type.
/// @throws ShapeError when heads, rows, segments or sinks do not fit.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> attention(const Var<T, D>& q, const Var<T, D>& k, const Var<T, D>& v,
                                  const std::vector<std::int64_t>& segments,
                                  std::int64_t window = 0, const AnyVar& sinks = {}) {
  const CausalAttention causal{segments, window};
  if (!sinks) return apply(causal, q, k, v);
  return apply_list<T, D>(AttentionWithSinks{causal}, {q, k, v, sinks});
}

}  // namespace espalier
