// SPDX-License-Identifier: Apache-2.0
// Mixtral's sparse block (arXiv:2401.04088, section 2.1): router, top-k, dispatch to rows in expert
// order, three grouped matrix products, combine. Never a loop over tokens.
//   x [N, H] -> y [N, H]     w1 (gate), w3 (up) [F, H]     w2 (down) [H, F]     router [E, H]
#pragma once

#include <string>
#include <vector>

#include <espalier/core/function.hpp>
#include <espalier/nn/linear.hpp>
#include <espalier/nn/router.hpp>
#include <espalier/ops/combine.hpp>
#include <espalier/ops/dispatch.hpp>
#include <espalier/ops/swiglu.hpp>

namespace espalier {

/// What an observer of a block sees in a forward pass.
template <FloatElement T, Device D = Cpu>
struct MoeObservation {
  int layer;
  const BasicRouting<D>& routing;
  const Tensor<T, D>& logits;          // [N, E]
  const Tensor<acc_t<T>, D>& weights;  // [N, K] gates
  const Tensor<T, D>& outputs;         // [R, H] of the experts, before the gate, in expert order
};

template <FloatElement T, Device D = Cpu>
using MoeObserver = Function<void(const MoeObservation<T, D>&)>;

/// E gated feed-forward networks; rows of expert e at [offsets[e], offsets[e+1]).
template <FloatElement T, Device D = Cpu>
class Experts {
 public:
  Experts() = default;
  Experts(GroupedLinear<T, D> w1, GroupedLinear<T, D> w2, GroupedLinear<T, D> w3)
      : w1_(std::move(w1)), w2_(std::move(w2)), w3_(std::move(w3)) {}

  Var<T, D> operator()(const Var<T, D>& rows, const GroupOffsets<D>& offsets,
                       const TrainContext* training = nullptr) const {
    const auto gate = w1_(rows, offsets, training);
    const auto up = w3_(rows, offsets, training);
    return w2_(swiglu(gate, up), offsets, training);
  }
  std::size_t size() const { return w1_.groups(); }

  void add_lora(const LoraConfig& config, std::uint64_t seed) {
    if (config.targets_any("w1")) w1_.add_lora(config, seed);
    if (config.targets_any("w2")) w2_.add_lora(config, seed);
    if (config.targets_any("w3")) w3_.add_lora(config, seed);
  }
  void collect(std::vector<NamedParameter>& out) const {
    for (const GroupedLinear<T, D>* part : {&w1_, &w2_, &w3_}) part->collect(out);
  }

 private:
  GroupedLinear<T, D> w1_, w2_, w3_;
};

template <FloatElement T, Device D = Cpu>
class MoeBlock {
 public:
  MoeBlock() = default;
  MoeBlock(Router<T, D> router, Experts<T, D> experts)
      : router_(std::move(router)), experts_(std::move(experts)) {}

  struct Output {
    Var<T, D> y;       // [N, H]
    Var<T, D> logits;  // [N, E], for the load-balancing loss
  };

  Output operator()(const Var<T, D>& x, const TrainContext* training = nullptr,
                    const MoeObserver<T, D>* observer = nullptr, int layer = 0) const {
    const auto routed = router_(x, training);
    const auto rows = experts_(dispatch(x, routed.routing), routed.routing.offsets, training);
    if (observer && *observer) {
      const auto logits = routed.logits.value();
      const auto weights = routed.weights.value();
      const auto outputs = rows.value();
      (*observer)({layer, routed.routing, logits, weights, outputs});
    }
    return {combine(rows, routed.weights, routed.routing), routed.logits};
  }

  /// From now on only experts with keep[e] can be chosen; empty lifts the mask.
  void mask_experts(std::vector<bool> keep) { router_.mask_experts(std::move(keep)); }

  void add_lora(const LoraConfig& config, std::uint64_t seed) {
    router_.add_lora(config, seed);
    experts_.add_lora(config, seed);
  }
  void collect(std::vector<NamedParameter>& out) const {
    router_.collect(out);
    experts_.collect(out);
  }

 private:
  Router<T, D> router_;
  Experts<T, D> experts_;
};

}  // namespace espalier
