// SPDX-License-Identifier: Apache-2.0
// A linear layer, or one per expert, with an optional bias and an optional LoRA adapter beside a
// frozen weight: y = x Wᵀ + scale · dropout(x) Aᵀ Bᵀ + b, scale = alpha / r, or alpha / sqrt(r)
// with rank-stabilised LoRA (Kalajdzievski 2023, arXiv:2312.03732).
#pragma once

#include <string>
#include <vector>

#include <espalier/core/math.hpp>
#include <espalier/core/random.hpp>
#include <espalier/nn/context.hpp>
#include <espalier/nn/parameter.hpp>
#include <espalier/ops/bias.hpp>
#include <espalier/ops/dropout.hpp>
#include <espalier/ops/linear.hpp>

namespace espalier {

struct LoraConfig {
  int r = 8;
  double alpha = 8;
  double dropout = 0;
  bool rslora = false;
  /// Modules accept q, k, v, o, router, gate, up, down, and the other names of target_of; a model
  /// also accepts the names of its family and `all` (models/layout.hpp).
  std::vector<std::string> targets;

  double scale() const { return rslora ? alpha / math::sqrt(static_cast<double>(r)) : alpha / r; }
  bool targets_any(std::string_view name) const {
    for (const std::string& t : targets) {
      if (t == name) return true;
    }
    return false;
  }
};

/// One weight per group of rows (one group: an ordinary linear layer), all of one shape [out, in].
template <FloatElement T, Device D = Cpu>
class GroupedLinear {
 public:
  GroupedLinear() = default;
  /// `biases` [out]: none, or one per weight.
  GroupedLinear(std::vector<std::string> names, std::vector<AnyVar> weights,
                std::vector<AnyVar> biases = {})
      : names_(std::move(names)), weights_(std::move(weights)), biases_(std::move(biases)) {}

  /// x [R, in], rows of group g at [offsets[g], offsets[g+1]) -> [R, out].
  Var<T, D> operator()(const Var<T, D>& x, const GroupOffsets<D>& offsets,
                       const TrainContext* training = nullptr) const {
    Var<T, D> lora_x;
    if (training && !pairs_.empty() && lora_dropout_ > 0) {
      const std::uint64_t stream = stream_of(names_[0]) + training->step * 0x9E3779B97F4A7C15u;
      lora_x = dropout(x, static_cast<float>(lora_dropout_), training->dropout_seed, stream);
    }
    const auto y = grouped_linear(x, weights_, offsets, pairs_, lora_scale_, lora_x);
    return biases_.empty() ? y : add_bias(y, biases_, offsets);
  }

  /// Adds A ~ U(-1/sqrt(in), 1/sqrt(in)) and B = 0, as PEFT initialises them; in f32 where T is
  /// narrower, as PEFT keeps them.
  void add_lora(const LoraConfig& config, std::uint64_t seed) {
    ESP_REQUIRE(config.r >= 1, Error, "lora: rank is ", config.r, ", expected at least 1");
    lora_scale_ = config.scale();
    lora_dropout_ = config.dropout;
    pairs_.clear();
    for (std::size_t g = 0; g < weights_.size(); ++g) {
      const std::int64_t out = weights_[g].shape(0), in = weights_[g].shape(1);
      const Tensor<acc_t<T>> a(Shape{config.r, in}), b(Shape{out, config.r}, acc_t<T>{0});
      const Philox random(seed, stream_of(names_[g]));
      const float bound = 1.0f / math::sqrt(static_cast<float>(in));
      for (std::int64_t i = 0; i < a.numel(); ++i) {
        a.data()[i] = bound * (2 * random.uniform(i) - 1);
      }
      const auto trained = [](const AnyTensor& t) {
        return parameter(Tensor<acc_t<T>, D>(t.on(memory_of<D>())));
      };
      pairs_.push_back({trained(a), trained(b)});
    }
  }

  void collect(std::vector<NamedParameter>& out, Listed listed = Listed::trained) const {
    for (std::size_t g = 0; g < weights_.size(); ++g) {
      collect_tensor(out, listed, names_[g] + ".weight", weights_[g]);
      if (!biases_.empty()) collect_tensor(out, listed, names_[g] + ".bias", biases_[g]);
      if (pairs_.empty()) continue;
      out.push_back({names_[g] + ".lora_A.weight", pairs_[g].a});
      out.push_back({names_[g] + ".lora_B.weight", pairs_[g].b});
    }
  }

  std::size_t groups() const { return weights_.size(); }
  const AnyVar& weight(std::size_t g = 0) const { return weights_[g]; }

 private:
  std::vector<std::string> names_;
  std::vector<AnyVar> weights_, biases_;
  std::vector<LoraPair> pairs_;
  double lora_scale_ = 1, lora_dropout_ = 0;
};

template <FloatElement T, Device D = Cpu>
class Linear : public GroupedLinear<T, D> {
 public:
  Linear() = default;
  /// `name` without ".weight"; `weight` [out, in], `bias` [out] or empty.
  Linear(std::string name, AnyVar weight, AnyVar bias = {})
      : GroupedLinear<T, D>({std::move(name)}, {std::move(weight)},
                            bias ? std::vector<AnyVar>{std::move(bias)} : std::vector<AnyVar>{}) {}

  Var<T, D> operator()(const Var<T, D>& x, const TrainContext* training = nullptr) const {
    return GroupedLinear<T, D>::operator()(x, one_group<D>(x.shape(0)), training);
  }
};

}  // namespace espalier
