// SPDX-License-Identifier: Apache-2.0
// The router of a mixture of experts: a linear layer gives every token a score for each expert, and
// the best K of them are kept.
//   x [N, H]   gate [E, H] -> logits [N, E]   weights [N, K]
#pragma once

#include <utility>
#include <vector>

#include <espalier/nn/linear.hpp>
#include <espalier/ops/mask_columns.hpp>
#include <espalier/ops/router_top_k.hpp>

namespace espalier {

template <FloatElement T, Device D = Cpu>
class Router {
 public:
  Router() = default;
  Router(Linear<T, D> gate, std::int64_t top_k, RouterOrder order = RouterOrder::top_k_softmax)
      : gate_(std::move(gate)), top_k_(top_k), order_(order) {}

  struct Output {
    Var<T, D> logits;          // [N, E], for the auxiliary losses; -inf where masked
    Var<acc_t<T>, D> weights;  // [N, K]
    BasicRouting<D> routing;
  };

  Output operator()(const Var<T, D>& x, const TrainContext* training = nullptr) const {
    auto logits = gate_(x, training);
    if (!keep_.empty()) logits = mask_columns(logits, keep_);
    auto [weights, routing] = router_top_k(logits, top_k_, order_);
    return {std::move(logits), std::move(weights), std::move(routing)};
  }

  /// From now on only experts with keep[e] can be chosen; empty lifts the mask.
  void mask_experts(std::vector<bool> keep) { keep_ = std::move(keep); }

  void add_lora(const LoraConfig& config, std::uint64_t seed) {
    if (config.targets_any("gate")) gate_.add_lora(config, seed);
  }
  void collect(std::vector<NamedParameter>& out) const { gate_.collect(out); }

 private:
  Linear<T, D> gate_;
  std::int64_t top_k_ = 2;
  RouterOrder order_ = RouterOrder::top_k_softmax;
  std::vector<bool> keep_;
};

}  // namespace espalier
