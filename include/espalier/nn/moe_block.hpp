// SPDX-License-Identifier: Apache-2.0
// A mixture of experts in place of a feed-forward layer (Mixtral, arXiv:2401.04088, section 2.1):
// router, top-k, dispatch to rows in expert order, three grouped GEMMs, combine; plus a shared
// expert that sees every token, in families that have one. No loop over tokens.
//   x [N, H] -> y [N, H]     gate, up [F, H]     down [H, F]     router [E, H]
#pragma once

#include <string>
#include <vector>

#include <espalier/core/function.hpp>
#include <espalier/nn/feed_forward.hpp>
#include <espalier/nn/router.hpp>
#include <espalier/ops/add.hpp>
#include <espalier/ops/combine.hpp>
#include <espalier/ops/dispatch.hpp>
#include <espalier/ops/sigmoid_gate.hpp>

namespace espalier {

/// Values of a forward pass that an observer gets.
template <FloatElement T, Device D = Cpu>
struct MoeObservation {
  int layer;
  const BasicRouting<D>& routing;
  const Tensor<T, D>& logits;          // [N, E]
  const Tensor<acc_t<T>, D>& weights;  // [N, K] routing weights
  const Tensor<T, D>& outputs;         // [R, H] of the experts, not yet weighted, in expert order
};

template <FloatElement T, Device D = Cpu>
using MoeObserver = Function<void(const MoeObservation<T, D>&)>;

/// An expert that sees every token, beside the routed ones (DeepSeekMoE, Dai et al. 2024,
/// arXiv:2401.06066). If it has its own router, its output is weighted by sigmoid(router x).
template <FloatElement T, Device D = Cpu>
struct SharedExpert {
  FeedForward<T, D> network;
  Linear<T, D> router;  // [1, H], or empty

  explicit operator bool() const { return static_cast<bool>(network); }
  Var<T, D> operator()(const Var<T, D>& x, const TrainContext* training) const {
    const auto y = network(x, training);
    return router.groups() == 0 ? y : sigmoid_gate(y, router(x, training));
  }
};

template <FloatElement T, Device D = Cpu>
class MoeBlock {
 public:
  MoeBlock() = default;
  MoeBlock(Router<T, D> router, Experts<T, D> experts, SharedExpert<T, D> shared = {})
      : router_(std::move(router)), experts_(std::move(experts)), shared_(std::move(shared)) {}

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
    const auto y = combine(rows, routed.weights, routed.routing);
    return {shared_ ? add(y, shared_(x, training)) : y, routed.logits};
  }

  /// Restricts the choice to experts with keep[e]; an empty mask allows all.
  void mask_experts(std::vector<bool> keep) { router_.mask_experts(std::move(keep)); }

  void add_lora(const LoraConfig& config, std::uint64_t seed) {
    router_.add_lora(config, seed);
    experts_.add_lora(config, seed);
    if (shared_) shared_.network.add_lora(config, seed);
    if (shared_.router.groups() > 0 && config.targets_any("shared_router")) {
      shared_.router.add_lora(config, seed);
    }
  }
  void collect(std::vector<NamedParameter>& out, Listed listed = Listed::trained) const {
    router_.collect(out, listed);
    experts_.collect(out, listed);
    shared_.network.collect(out, listed);
    shared_.router.collect(out, listed);
  }

 private:
  Router<T, D> router_;
  Experts<T, D> experts_;
  SharedExpert<T, D> shared_;
};

}  // namespace espalier
