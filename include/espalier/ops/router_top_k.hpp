// SPDX-License-Identifier: Apache-2.0
// Which experts see a token, and with which weight (Mixtral, Jiang et al. 2024, arXiv:2401.04088,
// eq. 1-3).
//   logits [N, E]   experts [N, K], best first   weights [N, K]
// weights = softmax over all E, top-k, divided by the sum of the kept; that is the softmax over the
// kept logits, which is how it is computed. Ties go to the lowest expert index. A logit of -inf is
// never chosen while K others are left; a NaN makes the token's weights NaN.
#pragma once

#include <cmath>
#include <limits>

#include <espalier/autograd/var.hpp>
#include <espalier/core/threads.hpp>

namespace espalier {

/// The assignment of tokens to experts. Routed rows are ordered by (expert, token, slot).
struct Routing {
  std::int64_t tokens = 0, experts = 0, top_k = 0;
  Tensor<std::int32_t> chosen;        // [N, K] expert of slot k of token n
  std::vector<std::int64_t> offsets;  // [E + 1] first row of each expert
  Tensor<std::int32_t> row_of_slot;   // [N * K]
  Tensor<std::int32_t> slot_of_row;   // [R]; token = slot / K

  std::int64_t rows() const { return tokens * top_k; }
};

/// The K largest of each row of `logits` [N, E] -> [N, K], best first.
template <FloatElement T>
[[nodiscard]] Tensor<std::int32_t> select_top_k(const Tensor<T>& logits, std::int64_t top_k) {
  const std::int64_t n = logits.shape(0), e = logits.shape(1);
  ESP_REQUIRE(top_k >= 1 && top_k <= e, ShapeError, "router_top_k: top_k is ", top_k,
              ", expected 1 to ", e, " (the number of experts)");
  Tensor<std::int32_t> chosen(Shape{n, top_k});
  parallel_for(n, 256, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const T* row = logits.data() + i * e;
      std::int32_t* best = chosen.data() + i * top_k;
      // Insertion into a short sorted list; `better` is strict, so the earlier index wins a tie.
      auto better = [](T a, T b) { return a > b || (std::isnan(b) && !std::isnan(a)); };
      std::int64_t filled = 0;
      for (std::int32_t c = 0; c < e; ++c) {
        std::int64_t at = filled;
        while (at > 0 && better(row[c], row[best[at - 1]])) --at;
        if (at == top_k) continue;
        filled = std::min(filled + 1, top_k);
        for (std::int64_t j = filled - 1; j > at; --j) best[j] = best[j - 1];
        best[at] = c;
      }
    }
  });
  return chosen;
}

/// Counts, offsets and row maps for an assignment `chosen` [N, K] to `experts` experts.
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

struct RouterWeights {
  static constexpr const char* kName = "router_top_k";
  Tensor<std::int32_t> chosen;  // [N, K]

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& logits) const {
    static_assert(!D::is_cuda, "router_top_k: no CUDA path");
    const std::int64_t e = logits.shape(1), k = chosen.shape(1);
    Tensor<T, D> weights(chosen.shape());
    for (std::int64_t n = 0; n < logits.shape(0); ++n) {
      T* w = weights.data() + n * k;
      const std::int32_t* c = chosen.data() + n * k;
      const T top = logits[n * e + c[0]];
      T total = 0;
      for (std::int64_t j = 0; j < k; ++j) total += w[j] = std::exp(logits[n * e + c[j]] - top);
      for (std::int64_t j = 0; j < k; ++j) w[j] /= total;
      for (std::int64_t j = 0; j < e; ++j) {
        if (std::isnan(logits[n * e + j])) std::fill_n(w, k, std::numeric_limits<T>::quiet_NaN());
      }
    }
    saved.tensors = {weights, logits};
    return weights;
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved& saved, const Tensor<T, D>& dw) const {
    const auto weights = saved.get<T, D>(0);
    const Shape& shape = saved.tensors[1].shape();
    const std::int64_t e = shape[1], k = chosen.shape(1);
    const Tensor<T, D> d(shape, T{0});
    for (std::int64_t n = 0; n < shape[0]; ++n) {
      T dot = 0;
      for (std::int64_t j = 0; j < k; ++j) dot += weights[n * k + j] * dw[n * k + j];
      for (std::int64_t j = n * k; j < (n + 1) * k; ++j) {
        d[n * e + chosen[j]] = weights[j] * (dw[j] - dot);
      }
    }
    return {d};
  }
};

template <FloatElement T, Device D>
struct RouterOutput {
  Var<T, D> weights;  // [N, K]
  Routing routing;
};

/// Routes `logits` [N, E] to the `top_k` best experts.
/// @throws ShapeError when top_k is not in 1..E.
template <FloatElement T, Device D>
[[nodiscard]] RouterOutput<T, D> router_top_k(const Var<T, D>& logits, std::int64_t top_k) {
  ESP_REQUIRE(logits.shape().rank() == 2, ShapeError, "router_top_k: logits are ", logits.shape(),
              ", expected [tokens, experts]");
  const auto chosen = select_top_k(logits.value(), top_k);
  return {apply(RouterWeights{chosen}, logits), make_routing(chosen, logits.shape(1))};
}

}  // namespace espalier
