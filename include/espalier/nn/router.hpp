// SPDX-License-Identifier: Apache-2.0
// The router of a mixture of experts: a linear layer computes a logit per token and expert, and the
// routing rule turns the logits into K experts and their weights.
//   x [N, H]   router [E, H] -> logits [N, E]   weights [N, K]
#pragma once

#include <string>
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
  /// `selection_bias` [E] of any float type, or none: see router_top_k. It is never trained;
  /// `collect` lists it as `bias_name`.
  Router(Linear<T, D> gate, RouterRule rule, const AnyTensor& selection_bias = {},
         std::string bias_name = "e_score_correction_bias")
      : gate_(std::move(gate)), rule_(rule), bias_name_(std::move(bias_name)) {
    if (selection_bias) {
      bias_ = converted<acc_t<T>>(selection_bias.on_host()).on(memory_of<D>());
    }
  }

  struct Output {
    Var<T, D> logits;          // [N, E], for the auxiliary losses; -inf where masked
    Var<acc_t<T>, D> weights;  // [N, K]
    BasicRouting<D> routing;
  };

  Output operator()(const Var<T, D>& x, const TrainContext* training = nullptr) const {
    auto logits = gate_(x, training);
    if (!keep_.empty()) logits = mask_columns(logits, keep_);
    auto [weights, routing] = router_top_k(logits, rule_, bias_);
    return {std::move(logits), std::move(weights), std::move(routing)};
  }

  /// Restricts the choice to experts with keep[e]; an empty mask allows all.
  void mask_experts(std::vector<bool> keep) { keep_ = std::move(keep); }

  void add_lora(const LoraConfig& config, std::uint64_t seed) {
    if (config.targets_any("router")) gate_.add_lora(config, seed);
  }
  void collect(std::vector<NamedParameter>& out, Listed listed = Listed::trained) const {
    gate_.collect(out, listed);
    collect_tensor(out, listed, bias_name_, AnyVar(bias_));
  }

 private:
  Linear<T, D> gate_;
  RouterRule rule_;
  AnyTensor bias_;
  std::string bias_name_;
  std::vector<bool> keep_;
};

}  // namespace espalier
