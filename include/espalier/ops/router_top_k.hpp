// SPDX-License-Identifier: Apache-2.0
// Which experts see a token, and with which weight, by a RouterRule (router_rule.hpp).
//   logits [N, E]   experts [N, K], best first   weights [N, K] in acc_t
// Ties go to the lowest expert or group index. A logit of -inf is never chosen while K others are
// left in the kept groups, and has a weight of 0 if it is. Experts of other groups are never
// chosen: -inf in their place, as in DeepSeek-V3. (DeepSeek-V2 has 0 there: the same but where less
// than K experts of the kept groups have a score above 0, and then the weights beyond are 0 too.)
// A NaN anywhere in a token's logits makes its weights NaN, and so does a +inf that is the largest,
// in a softmax. The sum over all experts runs in order of the experts, in double: leaving out
// experts with a logit of -inf changes no bit of weights or gradients.
#pragma once

#include <limits>
#include <vector>

#include <espalier/autograd/var.hpp>
#include <espalier/core/algorithm.hpp>
#include <espalier/core/math.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/softmax.hpp>
#include <espalier/ops/group_offsets.hpp>
#include <espalier/ops/router_rule.hpp>

namespace espalier {

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

/// The routing in host memory; a device has its own overload.
[[nodiscard]] inline const Routing& on_host(const Routing& routing) {
  return routing;
}

namespace detail {

/// The k best of the values it is offered, best first; NaN behind all others.
template <std::floating_point A>
class BestOf {
 public:
  explicit BestOf(std::int64_t k) : k_(k), values_(static_cast<std::size_t>(k)) {}

  /// From now on the indices of the best are kept in `best` [k].
  void begin(std::int32_t* best) {
    best_ = best;
    filled_ = 0;
  }
  // Insertion into a short sorted list; `better` is strict, so the earlier index wins a tie.
  void offer(std::int32_t index, A value) {
    std::int64_t at = filled_;
    while (at > 0 && better(value, values_[at - 1])) --at;
    if (at == k_) return;
    filled_ = std::min(filled_ + 1, k_);
    for (std::int64_t j = filled_ - 1; j > at; --j) {
      best_[j] = best_[j - 1];
      values_[j] = values_[j - 1];
    }
    best_[at] = index;
    values_[at] = value;
  }

 private:
  static bool better(A a, A b) { return a > b || (math::is_nan(b) && !math::is_nan(a)); }

  std::int64_t k_, filled_ = 0;
  std::int32_t* best_ = nullptr;
  std::vector<A> values_;
};

/// p = the scores of one row z [e]. The softmax adds its terms one after the other, so terms of 0
/// between them change nothing. A NaN makes all of a softmax NaN.
template <int W, FloatElement T>
ESP_SIMD_INLINE void router_scores(RouterRule::Score score, const T* z, std::int64_t e,
                                   acc_t<T>* p) {
  using A = acc_t<T>;
  using V = simd::Native<A, W>;
  if (score == RouterRule::Score::sigmoid) {
    cpu::map_row<W>(
        e, [](const auto& v) ESP_SIMD_LAMBDA { return sigmoid(v); }, p, z);
    return;
  }
  cpu::map_row<W>(e, cpu::Identity{}, p, z);
  cpu::softmax<A, A, W>(p, e, cpu::largest<A, W>(p, e).value, p);
  double total = 0;
  for (std::int64_t c = 0; c < e; ++c) total += static_cast<double>(p[c]);
  const V factor(static_cast<A>(1 / total));
  cpu::map_row<W>(
      e, [=](const V& v) ESP_SIMD_LAMBDA { return v * factor; }, p, p);
}

/// What ranks a group with these choice values. What cannot be chosen counts in no sum, so a group
/// with one expert left has that expert's value.
template <std::floating_point A>
A group_score(RouterRule::GroupScore score, const A* choice, std::int64_t size) {
  constexpr A kNone = -std::numeric_limits<A>::infinity();
  A first = kNone, second = kNone;
  for (std::int64_t c = 0; c < size; ++c) {
    if (choice[c] > first) {
      second = first;
      first = choice[c];
    } else if (choice[c] > second) {
      second = choice[c];
    }
  }
  return score == RouterRule::GroupScore::max || second == kNone ? first : first + second;
}

}  // namespace detail

/// The K largest of each row of `logits` [N, E] -> [N, K], best first; NaN behind all others.
/// @throws ShapeError when top_k is not in 1..E.
template <FloatElement T>
[[nodiscard]] Tensor<std::int32_t> select_top_k(const Tensor<T>& logits, std::int64_t top_k) {
  using A = acc_t<T>;
  const std::int64_t n = logits.shape(0), e = logits.shape(1);
  RouterRule{top_k}.check(e);
  Tensor<std::int32_t> chosen(Shape{n, top_k});
  parallel_for(n, rows_per_task(8 * e), [&](std::int64_t begin, std::int64_t end) {
    detail::BestOf<A> best(top_k);
    for (std::int64_t i = begin; i < end; ++i) {
      const T* row = logits.data() + i * e;
      best.begin(chosen.data() + i * top_k);
      for (std::int32_t c = 0; c < e; ++c) best.offer(c, static_cast<A>(row[c]));
    }
  });
  return chosen;
}

/// The experts that `rule` chooses for each row of `logits` [N, E] -> [N, K], best first.
/// `selection_bias` [E] may be empty.
template <FloatElement T>
[[nodiscard]] Tensor<std::int32_t> choose_experts(const Tensor<T>& logits, const RouterRule& rule,
                                                  const AnyTensor& selection_bias) {
  using A = acc_t<T>;
  const std::int64_t n = logits.shape(0), e = logits.shape(1), size = e / rule.groups;
  const bool by_logits = rule.ranks_by_logits(static_cast<bool>(selection_bias));
  if (by_logits && rule.groups == 1) return select_top_k(logits, rule.top_k);
  const Tensor<A> bias =
      selection_bias ? converted<A>(selection_bias.on_host()) : Tensor<A>(Shape{e}, A{0});
  Tensor<std::int32_t> chosen(Shape{n, rule.top_k});
  parallel_for(n, rows_per_task(16 * e), [&](std::int64_t begin, std::int64_t end) {
    constexpr A kMasked = -std::numeric_limits<A>::infinity();
    detail::BestOf<A> best(rule.top_k), best_groups(rule.top_groups);
    std::vector<std::int32_t> kept(static_cast<std::size_t>(rule.top_groups));
    const Tensor<A> scratch(Shape{e});
    A* choice = scratch.data();
    for (std::int64_t i = begin; i < end; ++i) {
      const T* z = logits.data() + i * e;
      if (!by_logits) {
        simd::dispatch([=]<int W>() { detail::router_scores<W>(rule.score, z, e, choice); });
      }
      for (std::int64_t c = 0; c < e; ++c) {
        const A logit = static_cast<A>(z[c]);
        choice[c] = by_logits || logit == kMasked ? logit : choice[c] + bias.data()[c];
      }
      best_groups.begin(kept.data());
      for (std::int32_t g = 0; g < rule.groups; ++g) {
        best_groups.offer(g, detail::group_score(rule.group_score, choice + g * size, size));
      }
      algo::stable_sort(kept, [](auto a, auto b) {
        return a < b;
      });  // ties between groups, too, to the lowest expert
      best.begin(chosen.data() + i * rule.top_k);
      for (const std::int64_t g : kept) {
        for (std::int64_t c = g * size; c < (g + 1) * size; ++c) {
          best.offer(static_cast<std::int32_t>(c), choice[c]);
        }
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
  for (std::int64_t i = 0; i < chosen.numel(); ++i) {
    const std::int32_t e = chosen.data()[i];
    ESP_REQUIRE(e >= 0 && e < experts, ShapeError, "make_routing: expert ", e, ", expected 0 to ",
                experts - 1);
    ++r.offsets[e + 1];
  }
  for (std::int64_t e = 0; e < experts; ++e) r.offsets[e + 1] += r.offsets[e];
  std::vector<std::int64_t> next(r.offsets.begin(), r.offsets.end() - 1);
  r.row_of_slot = Tensor<std::int32_t>(Shape{r.rows()});
  r.slot_of_row = Tensor<std::int32_t>(Shape{r.rows()});
  for (std::int64_t slot = 0; slot < r.rows(); ++slot) {
    const std::int64_t row = next[chosen.data()[slot]]++;
    r.row_of_slot.data()[slot] = static_cast<std::int32_t>(row);
    r.slot_of_row.data()[row] = static_cast<std::int32_t>(slot);
  }
  return r;
}

/// Saves weights and logits; backward computes a softmax or a sigmoid anew.
template <FloatElement T>
struct RouterWeights {
  static constexpr const char* kName = "router_top_k";
  Tensor<std::int32_t> chosen;  // [N, K]
  RouterRule rule;

  template <std::floating_point A, Device D = Cpu>
  Tensor<A, D> forward(Saved& saved, const AnyTensors& in) const {
    const Tensor<T, D> logits(in[0]);
    const std::int64_t e = logits.shape(1), k = rule.top_k;
    const Tensor<A, D> weights(chosen.shape());
    const A epsilon = static_cast<A>(rule.epsilon), scale = static_cast<A>(rule.scale);
    each_token(logits, [=, this]<int W>(std::int64_t n, const T* z, A* p) ESP_SIMD_LAMBDA {
      A* w = weights.data() + n * k;
      const std::int32_t* c = chosen.data() + n * k;
      if (rule.softmax_of_kept()) {
        A largest = static_cast<A>(z[c[0]]);  // a bias may have ranked it lower
        for (std::int64_t j = 1; j < k; ++j) largest = std::max(largest, static_cast<A>(z[c[j]]));
        for (std::int64_t j = 0; j < k; ++j) w[j] = math::exp(static_cast<A>(z[c[j]]) - largest);
      } else {
        detail::router_scores<W>(rule.score, z, e, p);
        for (std::int64_t j = 0; j < k; ++j) w[j] = p[c[j]];
      }
      A total = 1;
      if (rule.renormalize) {
        total = 0;
        for (std::int64_t j = 0; j < k; ++j) total += w[j];
        total += epsilon;
      }
      for (std::int64_t j = 0; j < e; ++j) {
        if (math::is_nan(static_cast<A>(z[j]))) total = std::numeric_limits<A>::quiet_NaN();
      }
      for (std::int64_t j = 0; j < k; ++j) w[j] = w[j] / total * scale;
    });
    saved.tensors = {weights, logits};
    return weights;
  }

  // With dot = <w, dw> and D the divisor (sum of the kept scores + epsilon; 1 if not renormalized),
  //   ds_j = (scale dw_j - shared) / D      shared = dot if renormalized, else 0
  // for the kept, and for the others 0. Through a sigmoid, dz_j = ds_j s_j (1 - s_j), and
  //   s_j scale / D = w_j,  so  dz_j = w_j (dw_j - shared / scale) (1 - s_j).
  // Through a softmax, dz_e = s_e (ds_e - <s, ds>), where <s, ds> = dot, or dot epsilon / D if
  // renormalized: nothing where epsilon is 0, and all but the kept have no gradient.
  template <std::floating_point A, Device D = Cpu>
  AnyTensors backward(const Saved& saved, const Tensor<A, D>& dweights) const {
    const auto weights = saved.get<A, D>(0);
    const auto logits = saved.get<T, D>(1);
    const std::int64_t e = logits.shape(1), k = rule.top_k;
    const Tensor<T, D> d(logits.shape());
    const A epsilon = static_cast<A>(rule.epsilon), scale = static_cast<A>(rule.scale);
    const bool all_are_in = rule.score == RouterRule::Score::softmax && !rule.softmax_of_kept();
    each_token(logits, [=, this]<int W>(std::int64_t n, const T* z, A* p) ESP_SIMD_LAMBDA {
      const A *w = weights.data() + n * k, *dw = dweights.data() + n * k;
      const std::int32_t* c = chosen.data() + n * k;
      T* dz = d.data() + n * e;
      A dot = 0;
      for (std::int64_t j = 0; j < k; ++j) dot += w[j] * dw[j];
      const A shared = rule.renormalize ? dot / scale : A{0};
      A of_all = 0;  // <s, ds>
      if (all_are_in) {
        using V = simd::Native<T, W>;
        detail::router_scores<W>(rule.score, z, e, p);
        of_all = dot;
        if (rule.renormalize) {
          A total = epsilon;
          for (std::int64_t j = 0; j < k; ++j) total += p[c[j]];
          of_all *= epsilon / total;
        }
        cpu::map_row<W>(
            e, [=](const V& v) ESP_SIMD_LAMBDA { return v * V(-of_all); }, dz, p);
      } else {
        for (std::int64_t j = 0; j < e; ++j) dz[j] = T{0};
      }
      for (std::int64_t j = 0; j < k; ++j) {
        A own = w[j] * (dw[j] - shared);
        if (all_are_in) own -= p[c[j]] * of_all;
        if (rule.score == RouterRule::Score::sigmoid) {
          own /= A{1} + math::exp(static_cast<A>(z[c[j]]));  // 1 - s
        }
        dz[c[j]] = static_cast<T>(own);
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

/// The name of router_top_k() for Launch, whose forward(logits, rule, selection_bias) returns a
/// RouterOutput: a device computes choice and weights in one launch.
struct RouterTopK {};

/// Routes `logits` [N, E] by `rule`. `selection_bias` [E], of any float type, is added to the
/// scores for the choice only and has no gradient; an expert whose bias is NaN ranks last.
/// @throws ShapeError when the rule or the bias does not fit the logits.
template <FloatElement T, Device D>
[[nodiscard]] RouterOutput<T, D> router_top_k(const Var<T, D>& logits, const RouterRule& rule,
                                              const AnyTensor& selection_bias = {}) {
  ESP_REQUIRE(logits.shape().rank() == 2, ShapeError, "router_top_k: logits are ", logits.shape(),
              ", expected [tokens, experts]");
  const std::int64_t e = logits.shape(1);
  rule.check(e);
  ESP_REQUIRE(!selection_bias || selection_bias.shape() == Shape{e}, ShapeError,
              "router_top_k: selection_bias is ", selection_bias.shape(), ", expected [", e, "]");
  if constexpr (D::is_cuda) {
    static_assert(LaunchedForward<RouterTopK, T, D, Var<T, D>, RouterRule, AnyTensor>,
                  "router_top_k on this device: include <espalier/cuda/moe.hpp>, which defines "
                  "Launch<RouterTopK>");
    return Launch<RouterTopK, T, D>::forward(logits, rule, selection_bias);
  } else {
    const auto chosen = choose_experts(logits.value(), rule, selection_bias);
    return {apply_list<acc_t<T>, D>(RouterWeights<T>{chosen, rule}, {logits}),
            make_routing(chosen, e)};
  }
}

namespace detail {
/// @throws ShapeError unless there is an [N, E] per layer, and a row.
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

[[nodiscard]] inline std::int64_t total_rows(std::span<const AnyTensor> layers) {
  std::int64_t rows = 0;
  for (const AnyTensor& layer : layers) rows += layer.shape(0);
  return rows;
}

/// Tokens of a task of the losses, and of a partial sum of theirs.
inline constexpr std::int64_t kRouterLossBlock = 256;

/// body.operator()<W>(token, its logits, E, scratch [E]) for every token.
template <FloatElement T, Device D, class Body>
void each_router_row(const Tensor<T, D>& logits, const Body& body) {
  const std::int64_t e = logits.shape(1);
  parallel_for(logits.shape(0), kRouterLossBlock, [&](std::int64_t begin, std::int64_t end) {
    const Tensor<acc_t<T>, D> scratch(Shape{e});
    simd::dispatch([&]<int W>() {
      for (std::int64_t n = begin; n < end; ++n) {
        body.template operator()<W>(n, logits.data() + n * e, e, scratch.data());
      }
    });
  });
}

}  // namespace detail

}  // namespace espalier
