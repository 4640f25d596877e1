// SPDX-License-Identifier: Apache-2.0
// What fine-tuning will need, before it begins: bytes by what they are for, and floating-point
// operations. Counts follow what the ops of a layer keep for their backward, in f32; the base
// weights are mapped, so they count as they are stored.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>

#include <espalier/models/mixtral_config.hpp>
#include <espalier/nn/linear.hpp>

namespace espalier::train {

struct MemoryForecast {
  double weights_bytes = 0;     // mapped; the system may drop and read them again
  double adapter_bytes = 0;     // parameters and gradients
  double optimizer_bytes = 0;   // two moments
  double activation_bytes = 0;  // kept from forward to backward, and the work of one layer
  double total_bytes() const {
    return weights_bytes + adapter_bytes + optimizer_bytes + activation_bytes;
  }
};

/// `tokens`: of the largest micro-batch. A layer keeps the inputs of those matrices that are
/// adapted.
[[nodiscard]] inline MemoryForecast forecast_memory(const MixtralConfig& c, double weights_bytes,
                                                    const LoraConfig& lora, std::int64_t trainable,
                                                    std::int64_t tokens) {
  const auto d = [](std::int64_t v) { return static_cast<double>(v); };
  const auto adapts = [&](std::initializer_list<const char*> targets) {
    for (const char* t : targets) {
      if (lora.targets_any(t)) return 1.0;
    }
    return 0.0;
  };
  const double h = d(c.hidden_size), f = d(c.intermediate_size), k = d(c.num_experts_per_tok);
  const double q = d(c.num_attention_heads * c.head_dim);
  const double kv = d(c.num_key_value_heads * c.head_dim), e = d(c.num_local_experts);
  // The norms' inputs, q k v after rope and the attention's output; gate, up and output of the
  // routed rows. With dropout the adapted input is kept a second time.
  double kept = 2 * h + 2 * q + 2 * kv + 2 * e + k * (2 * f + h);
  const double copies = lora.dropout > 0 ? 2 : 1;
  kept += copies * (h * (adapts({"q", "k", "v"}) + adapts({"gate"})) +
                    k * (h * adapts({"w1", "w3"}) + f * adapts({"w2"})));
  const double passing = 4 * h + 2 * q + 4 * kv + k * (2 * h + 3 * f);
  const double logits = std::min(d(tokens) * d(c.vocab_size), 0x1p23) + d(tokens) * h;
  MemoryForecast m;
  m.weights_bytes = weights_bytes;
  m.adapter_bytes = 2 * 4 * d(trainable);
  m.optimizer_bytes = 2 * 4 * d(trainable);
  // Freed blocks that wait in the pool for reuse; measured 0.95 to 1.0, the rest is a margin.
  constexpr double kPool = 1.1;
  m.activation_bytes = kPool * 4 * (d(tokens) * (d(c.num_hidden_layers) * kept + passing) + logits);
  return m;
}

/// Of forward and backward for one token at a frozen base: 2 per weight that the token meets,
/// forward and again for the gradient of the activations; 6 per adapter weight; attention over a
/// sequence of `length` tokens.
[[nodiscard]] inline double forecast_flops_per_token(const MixtralConfig& c, std::int64_t trainable,
                                                     double length) {
  const auto d = [](std::int64_t v) { return static_cast<double>(v); };
  const double h = d(c.hidden_size), f = d(c.intermediate_size), k = d(c.num_experts_per_tok);
  const double q = d(c.num_attention_heads * c.head_dim),
               kv = d(c.num_key_value_heads * c.head_dim);
  const double layer = 2 * h * q + 2 * h * kv + h * d(c.num_local_experts) + k * 3 * h * f;
  const double weights = d(c.num_hidden_layers) * layer + h * d(c.vocab_size);
  const double attention = d(c.num_hidden_layers) * 2 * q * (length / 2);  // scores and sum, causal
  return 4 * weights + 6 * attention + 6 * d(trainable);
}

}  // namespace espalier::train
