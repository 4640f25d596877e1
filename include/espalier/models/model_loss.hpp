// SPDX-License-Identifier: Apache-2.0
// What a language model says of a packed batch when it is trained, whatever it computes in.
#pragma once

#include <functional>
#include <vector>

#include <espalier/autograd/var.hpp>
#include <espalier/nn/context.hpp>

namespace espalier {

template <FloatElement T, Device D = Cpu>
struct ModelLoss {
  Var<T, D> loss_sum;  // [1] sum over the targets of -log p
  Var<T, D> aux;       // [1] load-balancing loss before its coefficient; empty unless asked for
};

/// targets[i] is the token that row i predicts, -1 where it is not trained on; the context is null
/// outside of training.
using LossFunction = std::function<ModelLoss<float>(
    const PackedTokens& tokens, const Tensor<std::int32_t>& targets, const TrainContext* training)>;

}  // namespace espalier
