// SPDX-License-Identifier: Apache-2.0
// The training loss of a language model on a packed batch, for any element type and device.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/core/function.hpp>
#include <espalier/nn/context.hpp>
#include <espalier/ops/add.hpp>
#include <espalier/ops/scale.hpp>

namespace espalier {

template <FloatElement T, Device D = Cpu>
struct ModelLoss {
  Var<T, D> loss_sum;  // [1] sum over the targets of -log p
  Var<T, D> aux;       // [1] load-balancing loss before its coefficient; empty without want_aux
};

/// loss_factor · loss_sum + aux_factor · aux, and its terms as numbers.
struct Objective {
  AnyVar value;
  double loss_sum = 0, aux = 0;
};

/// targets[i] is the token that row i predicts, -1 for rows that are not trained on. The context is
/// null outside of training.
using ObjectiveFunction =
    Function<Objective(const PackedTokens& tokens, const Tensor<std::int32_t>& targets,
                       const TrainContext* training, double loss_factor, double aux_factor)>;

template <FloatElement T, Device D>
[[nodiscard]] Objective make_objective(const ModelLoss<T, D>& loss, double loss_factor,
                                       double aux_factor) {
  const auto number = [](const AnyVar& v) {
    return static_cast<double>(Tensor<T>(v.any().on_host())[0]);
  };
  Objective objective;
  auto value = scale(loss.loss_sum, loss_factor);
  if (loss.aux && aux_factor != 0 && loss.aux.requires_grad()) {
    value = add(value, scale(loss.aux, aux_factor));
  }
  objective.value = value;
  objective.loss_sum = number(loss.loss_sum);
  if (loss.aux) objective.aux = number(loss.aux);
  return objective;
}

/// The objective of a model with `loss(tokens, targets, training)`; holds a copy of the model.
template <class Model>
[[nodiscard]] ObjectiveFunction objective_of(Model model) {
  return [model = std::move(model)](const PackedTokens& tokens, const Tensor<std::int32_t>& targets,
                                    const TrainContext* training, double loss_factor,
                                    double aux_factor) {
    return make_objective(model.loss(tokens, targets, training), loss_factor, aux_factor);
  };
}

}  // namespace espalier
