// SPDX-License-Identifier: Apache-2.0
// One optimizer step at a time: micro-batches forward and backward, clipping, optim::AdamW.
// The objective of a step is   sum of token losses / targets of all its micro-batches
//                            + aux_coefficient · mean over micro-batches of the auxiliary loss,
// so neither term's weight depends on the micro-batches of a step. Sums over micro-batches are in
// double and in order. Dropout is a function of (seed, step, micro-batch), without hidden state.
#pragma once

#include <cstdint>
#include <vector>

#include <espalier/core/math.hpp>
#include <espalier/data/batches.hpp>
#include <espalier/models/model_loss.hpp>
#include <espalier/optim/adamw.hpp>
#include <espalier/optim/clip.hpp>
#include <espalier/optim/schedule.hpp>

namespace espalier::train {

struct TrainerConfig {
  optim::Schedule schedule;
  optim::AdamWConfig adamw;
  double clip = 1.0;              // maximal global gradient norm; 0: no clipping
  double aux_coefficient = 0.0;   // 0: the auxiliary loss is computed, but not trained on
  std::uint64_t seed = 0;         // of dropout
  bool recompute_layers = false;  // keep their inputs only, recompute the rest in backward
  bool want_aux = true;           // false where the model has no auxiliary loss
};

/// A loss or gradient is not finite. Parameters and optimizer are unchanged by the step.
struct DivergedError : Error {
  using Error::Error;
};

struct StepResult {
  std::int64_t step = 0;  // counted from 1
  double loss = 0;        // mean over the targets, before the update, without the auxiliary loss
  double aux_loss = 0;    // mean over the micro-batches, before its coefficient
  double grad_norm = 0;   // before clipping
  double lr = 0;          // of this update
  std::int64_t tokens = 0;
  std::int64_t targets = 0;
};

class Trainer {
 public:
  /// `objective` is a function of `parameters`.
  ESP_ON_DEMAND Trainer(const std::vector<NamedParameter>& parameters, ObjectiveFunction objective,
                        const TrainerConfig& config)
      : objective_(std::move(objective)), config_(config), optimizer_(parameters, config.adamw) {
    ESP_REQUIRE(!optimizer_.parameters().empty(), Error,
                "trainer: the model has no trainable parameters; add LoRA targets");
  }

  /// `model` has `parameters()` and `loss(tokens, targets, training)`; the trainer holds a copy.
  template <class Model>
  Trainer(const Model& model, const TrainerConfig& config)
      : Trainer(model.parameters(), objective_of(model), config) {}

  /// One update. @throws DivergedError naming the step.
  ESP_ON_DEMAND StepResult step(const std::vector<data::Batch>& micro_batches) {
    StepResult r;
    r.step = optimizer_.steps() + 1;
    for (const data::Batch& b : micro_batches) {
      r.tokens += b.tokens.tokens();
      r.targets += b.target_count;
    }
    ESP_REQUIRE(r.targets > 0, Error, "trainer: step ", r.step, " has no targets");
    optimizer_.zero_grad();
    double loss_sum = 0, aux_sum = 0;
    for (std::size_t m = 0; m < micro_batches.size(); ++m) {
      accumulate(micro_batches, m, r.targets, loss_sum, aux_sum);
    }
    r.loss = loss_sum / static_cast<double>(r.targets);
    r.aux_loss = aux_sum / static_cast<double>(micro_batches.size());
    require_finite(r.step, "loss", r.loss);
    require_finite(r.step, "auxiliary loss", r.aux_loss);
    r.grad_norm = optim::global_grad_norm(optimizer_.parameters());
    require_finite(r.step, "gradient norm", r.grad_norm);
    r.lr = config_.schedule.at(r.step - 1);
    optimizer_.step(r.lr, optim::clip_coefficient(r.grad_norm, config_.clip));
    optimizer_.zero_grad();
    return r;
  }

  /// Mean loss over all targets of held-out batches; no dropout, no gradients.
  ESP_ON_DEMAND double evaluate(const std::vector<data::Batch>& batches) const {
    const NoGrad no_grad;
    double sum = 0;
    std::int64_t targets = 0;
    for (const data::Batch& b : batches) {
      sum += objective_(b.tokens, b.targets, nullptr, 1.0, 0.0).loss_sum;
      targets += b.target_count;
    }
    return targets > 0 ? sum / static_cast<double>(targets) : 0.0;
  }

  optim::AdamW& optimizer() { return optimizer_; }
  const optim::AdamW& optimizer() const { return optimizer_; }

 private:
  ESP_ON_DEMAND void accumulate(const std::vector<data::Batch>& micro_batches, std::size_t m,
                                std::int64_t targets, double& loss_sum, double& aux_sum) const {
    constexpr std::uint64_t kMaxMicroBatches = 1 << 20;
    const std::uint64_t index =
        static_cast<std::uint64_t>(optimizer_.steps()) * kMaxMicroBatches + m;
    const TrainContext context{config_.want_aux, config_.seed, index, config_.recompute_layers};
    const data::Batch& b = micro_batches[m];
    const double share = config_.aux_coefficient / static_cast<double>(micro_batches.size());
    const Objective o =
        objective_(b.tokens, b.targets, &context, 1.0 / static_cast<double>(targets), share);
    loss_sum += o.loss_sum;
    aux_sum += o.aux;
    backward(o.value);
  }

  static void require_finite(std::int64_t step, const char* what, double value) {
    ESP_REQUIRE(math::is_finite(value), DivergedError, "step ", step, ": the ", what, " is ",
                math::is_nan(value) ? math::abs(value) : value,
                step == 1 ? " before the first update, so it comes from the weights or the data, "
                            "not from the learning rate. Look for NaN or infinity in the weights "
                            "that training starts from, for weights that overflow in the type "
                            "computed with, or for a broken example"
                          : "; nothing was updated. Lower the learning rate, lengthen the warmup, "
                            "or look for a broken example");
  }

  ObjectiveFunction objective_;
  TrainerConfig config_;
  optim::AdamW optimizer_;
};

}  // namespace espalier::train
