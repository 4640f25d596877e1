// SPDX-License-Identifier: Apache-2.0
// Gated feed-forward networks, down(act(gate x) · up x): a single one, or one per expert on the
// rows routed to it.
//   x [R, H] -> [R, H]     gate (Mixtral's w1), up (w3) [F, H]     down (w2) [H, F]
#pragma once

#include <string>
#include <vector>

#include <espalier/nn/linear.hpp>
#include <espalier/ops/clamped_swiglu.hpp>
#include <espalier/ops/swiglu.hpp>

namespace espalier {

/// SwiGLU, or the variant of gpt-oss: inputs clamped to `limit`, a steeper sigmoid, and `up + 1` in
/// place of `up`.
struct Activation {
  bool clamped = false;
  double alpha = 1.702, limit = 7;
};

template <FloatElement T, Device D = Cpu>
class FeedForward {
 public:
  FeedForward() = default;
  /// The order is that of Mixtral's w1, w2, w3.
  FeedForward(GroupedLinear<T, D> gate, GroupedLinear<T, D> down, GroupedLinear<T, D> up,
              const Activation& activation = {})
      : gate_(std::move(gate)),
        down_(std::move(down)),
        up_(std::move(up)),
        activation_(activation) {}

  /// Rows of network e at [offsets[e], offsets[e+1]).
  Var<T, D> operator()(const Var<T, D>& rows, const GroupOffsets<D>& offsets,
                       const TrainContext* training = nullptr) const {
    const auto gate = gate_(rows, offsets, training);
    const auto up = up_(rows, offsets, training);
    const auto inner = activation_.clamped
                           ? clamped_swiglu(gate, up, activation_.alpha, activation_.limit)
                           : swiglu(gate, up);
    return down_(inner, offsets, training);
  }
  /// Applies the single network to all rows.
  Var<T, D> operator()(const Var<T, D>& x, const TrainContext* training = nullptr) const {
    return (*this)(x, one_group<D>(x.shape(0)), training);
  }
  explicit operator bool() const { return size() > 0; }
  std::size_t size() const { return gate_.groups(); }

  void add_lora(const LoraConfig& config, std::uint64_t seed) {
    if (config.targets_any("gate")) gate_.add_lora(config, seed);
    if (config.targets_any("down")) down_.add_lora(config, seed);
    if (config.targets_any("up")) up_.add_lora(config, seed);
  }
  void collect(std::vector<NamedParameter>& out, Listed listed = Listed::trained) const {
    for (const GroupedLinear<T, D>* part : {&gate_, &down_, &up_}) part->collect(out, listed);
  }

 private:
  GroupedLinear<T, D> gate_, down_, up_;
  Activation activation_;
};

/// The experts of a mixture.
template <FloatElement T, Device D = Cpu>
using Experts = FeedForward<T, D>;

}  // namespace espalier
