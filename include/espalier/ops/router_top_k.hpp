// SPDX-License-Identifier: Apache-2.0
// Which experts see a token, and with which weight (Mixtral, Jiang et al. 2024, arXiv:2401.04088,
// eq. 1-3).
//   logits [N, E]   experts [N, K], best first   weights [N, K] in acc_t
// Ties go to the lowest expert index. A logit of -inf is never chosen while K others are left; a
// NaN anywhere in a token's logits makes its weights NaN, and so does a +inf that is the largest.
#pragma once

#include <limits>

#include <espalier/autograd/var.hpp>
#include <espalier/core/math.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/softmax.hpp>
#include <espalier/ops/group_offsets.hpp>

namespace espalier {

/// In which order a router takes the softmax and the K largest.
enum class RouterOrder : std::uint8_t {
  /// Softmax over the K kept logits: the weights sum to 1.
  top_k_softmax,
  /// Softmax over all E, keep K, divide by their sum (Mixtral; Qwen with norm_topk_prob). The sum
  /// over all cancels, so this is another name for the first.
  softmax_top_k_renormalize = top_k_softmax,
  /// Softmax over all E, keep K: the weights sum to less than 1, and every logit has a gradient
  /// (OLMoE, Muennighoff et al. 2024, arXiv:2409.02060; Qwen without norm_topk_prob).
  softmax_top_k,
};

/// The assignment of tokens to experts. Routed rows are ordered by (expert, token, slot).
template <Device D>
struct BasicRouting {
  std::int64_t tokens = 0, experts = 0, top_k = 0;
  Tensor<std::int32_t, D> chosen;       // [N, K] expert of slot k of token n
  GroupOffsets<D> offsets;              // [E + 1] first row of each expert
  Tensor<std::int32_t, D> row_of_slot;  // [N * K]
  Tensor<std::int32_t, D> slot_of_row;  // [R]; token = slot / K

  std::int64_t rows() const { return tokens * top_k; }
};
using Routing = BasicRouting<Cpu>;

/// The routing where the host can read it; a device has its own overload.
[[nodiscard]] inline const Routing& on_host(const Routing& routing) {
  return routing;
}

/// The K largest of each row of `logits` [N, E] -> [N, K], best first; NaN behind all others.
/// @throws ShapeError when top_k is not in 1..E.
template <FloatElement T>
[[nodiscard]] Tensor<std::int32_t> select_top_k(const Tensor<T>& logits, std::int64_t top_k) {
  using A = acc_t<T>;
  const std::int64_t n = logits.shape(0), e = logits.shape(1);
  ESP_REQUIRE(top_k >= 1 && top_k <= e, ShapeError, "router_top_k: top_k is ", top_k,
              ", expected 1 to ", e, " (the number of experts)");
  Tensor<std::int32_t> chosen(Shape{n, top_k});
  parallel_for(n, rows_per_task(8 * e), [&](std::int64_t begin, std::int64_t end) {
    // Insertion into a short sorted list; `better` is strict, so the earlier index wins a tie.
    auto better = [](A a, A b) { return a > b || (math::is_nan(b) && !math::is_nan(a)); };
    std::vector<A> values(top_k);
    for (std::int64_t i = begin; i < end; ++i) {
      const T* row = logits.data() + i * e;
      std::int32_t* best = chosen.data() + i * top_k;
      std::int64_t filled = 0;
      for (std::int32_t c = 0; c < e; ++c) {
        const A value = static_cast<A>(row[c]);
        std::int64_t at = filled;
        while (at > 0 && better(value, values[at - 1])) --at;
        if (at == top_k) continue;
        filled = std::min(filled + 1, top_k);
        for (std::int64_t j = filled - 1; j > at; --j) {
          best[j] = best[j - 1];
          values[j] = values[j - 1];
        }
        best[at] = c;
        values[at] = value;
      }
    }
  });
  return chosen;
}

/// Counts, offsets and row maps for an assignment `chosen` [N, K] to `experts` experts.
/// @throws ShapeError for an expert that is not there.
[[nodiscard]] inline Routing make_routing(const Tensor<std::int32_t>& chosen,
                                          std::int64_t experts) {
  Routing r;
  r.tokens = chosen.shape(0);
  r.top_k = chosen.shape(1);
  r.experts = experts;
  r.chosen = chosen;
  r.offsets.assign(experts + 1, 0);
  for (const std::int32_t e : chosen.span()) {
    ESP_REQUIRE(e >= 0 && e < experts, ShapeError, "make_routing: expert ", e, ", expected 0 to ",
                experts - 1);
    ++r.offsets[e + 1];
  }
  for (std::int64_t e = 0; e < experts; ++e) r.offsets[e + 1] += r.offsets[e];
  std::vector<std::int64_t> next(r.offsets.begin(), r.offsets.end() - 1);
  r.row_of_slot = Tensor<std::int32_t>(Shape{r.rows()});
  r.slot_of_row = Tensor<std::int32_t>(Shape{r.rows()});
  for (std::int64_t slot = 0; slot < r.rows(); ++slot) {
    const std::int64_t row = next[chosen[slot]]++;
    r.row_of_slot[slot] = static_cast<std::int32_t>(row);
    r.slot_of_row[row] = static_cast<std::int32_t>(slot);
  }
  return r;
}

template <FloatElement T>
struct RouterWeights {
  static constexpr const char* kName = "router_top_k";
  Tensor<std::int32_t> chosen;  // [N, K]
  RouterOrder order;

  template <std::floating_point A, Device D = Cpu>
  Tensor<A, D> forward(Saved& saved, const std::vector<AnyTensor>& in) const {
    static_assert(!D::is_cuda, "router_top_k: no CUDA path");
    const Tensor<T, D> logits(in[0]);
    const std::int64_t e = logits.shape(1), k = chosen.shape(1);
    const Tensor<A, D> weights(chosen.shape());
    each_token(logits, [=, this]<int W>(std::int64_t n, const T* z, A* p) ESP_SIMD_LAMBDA {
      A* w = weights.data() + n * k;
      const std::int32_t* c = chosen.data() + n * k;
      if (order == RouterOrder::softmax_top_k) {
        cpu::softmax_row<W>(z, e, p);
        for (std::int64_t j = 0; j < k; ++j) w[j] = p[c[j]];
      } else {
        const A largest = static_cast<A>(z[c[0]]);
        A total = 0;
        for (std::int64_t j = 0; j < k; ++j) {
          total += w[j] = math::exp(static_cast<A>(z[c[j]]) - largest);
        }
        for (std::int64_t j = 0; j < e; ++j) {
          if (math::is_nan(static_cast<A>(z[j]))) total = std::numeric_limits<A>::quiet_NaN();
        }
        for (std::int64_t j = 0; j < k; ++j) w[j] /= total;
      }
    });
    saved.tensors = {weights, logits};
    return weights;
  }

  // dz_e = p_e (dw_e - <w, dw>), dw_e = 0 where e is not chosen. Renormalised, p is w, and 0 there.
  template <std::floating_point A, Device D = Cpu>
  std::vector<AnyTensor> backward(const Saved& saved, const Tensor<A, D>& dweights) const {
    const auto weights = saved.get<A, D>(0);
    const auto logits = saved.get<T, D>(1);
    const std::int64_t e = logits.shape(1), k = chosen.shape(1);
    const Tensor<T, D> d(logits.shape());
    each_token(logits, [=, this]<int W>(std::int64_t n, const T* z, A* p) ESP_SIMD_LAMBDA {
      const A *w = weights.data() + n * k, *dw = dweights.data() + n * k;
      T* dz = d.data() + n * e;
      A dot = 0;
      for (std::int64_t j = 0; j < k; ++j) dot += w[j] * dw[j];
      if (order == RouterOrder::softmax_top_k) {
        using V = simd::Native<T, W>;
        cpu::softmax_row<W>(z, e, p);
        cpu::map_row<W>(
            e, [=](const V& v) ESP_SIMD_LAMBDA { return v * V(-dot); }, dz, p);
      } else {
        for (std::int64_t j = 0; j < e; ++j) dz[j] = T{0};
      }
      for (std::int64_t j = 0; j < k; ++j) {
        dz[chosen[n * k + j]] = static_cast<T>(w[j] * (dw[j] - dot));
      }
    });
    return {d};
  }

 private:
  /// body(token, its logits, scratch [E]) for every token.
  template <Device D, class Body>
  static void each_token(const Tensor<T, D>& logits, const Body& body) {
    const std::int64_t e = logits.shape(1);
    parallel_for(logits.shape(0), rows_per_task(4 * e), [&](std::int64_t begin, std::int64_t end) {
      const Tensor<acc_t<T>, D> scratch(Shape{e});
      simd::dispatch([&]<int W>() {
        for (std::int64_t n = begin; n < end; ++n) {
          body.template operator()<W>(n, logits.data() + n * e, scratch.data());
        }
      });
    });
  }
};

template <FloatElement T, Device D>
struct RouterOutput {
  Var<acc_t<T>, D> weights;  // [N, K]
  BasicRouting<D> routing;
};

/// Routes `logits` [N, E] to the `top_k` best experts.
/// @throws ShapeError when top_k is not in 1..E.
template <FloatElement T, Device D>
[[nodiscard]] RouterOutput<T, D> router_top_k(const Var<T, D>& logits, std::int64_t top_k,
                                              RouterOrder order = RouterOrder::top_k_softmax) {
  ESP_REQUIRE(logits.shape().rank() == 2, ShapeError, "router_top_k: logits are ", logits.shape(),
              ", expected [tokens, experts]");
  if constexpr (requires { launch_router_top_k(D{}, logits, top_k, order); }) {
    return launch_router_top_k(D{}, logits, top_k, order);
  } else {
    const auto chosen = select_top_k(logits.value(), top_k);
    return {apply_list<acc_t<T>, D>(RouterWeights<T>{chosen, order}, {logits}),
            make_routing(chosen, logits.shape(1))};
  }
}

namespace detail {
/// Refuses what is not one [N, E] per layer, with one row at least.
template <FloatElement T, Device D>
void check_router_logits(const char* op, const std::vector<Var<T, D>>& layers) {
  ESP_REQUIRE(!layers.empty(), ShapeError, op, ": no router logits");
  std::int64_t rows = 0;
  for (const auto& layer : layers) {
    ESP_REQUIRE(layer.shape().rank() == 2 && layer.shape(1) == layers[0].shape(-1), ShapeError, op,
                ": router logits are ", layer.shape(), ", expected [tokens, ", layers[0].shape(-1),
                "]");
    rows += layer.shape(0);
  }
  ESP_REQUIRE(rows > 0, ShapeError, op, ": router logits are ", layers[0].shape(),
              ", expected a token");
}
}  // namespace detail

}  // namespace espalier
