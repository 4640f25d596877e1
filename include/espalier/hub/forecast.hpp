// SPDX-License-Identifier: Apache-2.0
// Forecasts memory and floating-point operations of a model before it computes anything.
// Activations are what the ops of a layer keep for their backward pass, in f32. Weights are mapped,
// so their size is that of the files. Every program uses this forecast.
#pragma once

#ifdef __CUDACC__
#error "espalier/hub/forecast.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include <espalier/models/layout.hpp>

namespace espalier {

struct MemoryForecast {
  double weights_bytes = 0;     // mapped; the system may drop and reread pages
  double adapter_bytes = 0;     // parameters and gradients
  double optimizer_bytes = 0;   // two moments
  double activation_bytes = 0;  // kept from forward to backward, and temporaries of one layer
  double total_bytes() const {
    return weights_bytes + adapter_bytes + optimizer_bytes + activation_bytes;
  }
};

/// Counts the LoRA parameters of rank `r` on these targets (as resolve_targets returns them).
[[nodiscard]] std::int64_t lora_parameters(const DecoderConfig& c, std::int64_t r,
                                           const std::vector<std::string>& targets);

/// Memory of fine-tuning; `tokens` is the size of the largest micro-batch. A layer keeps the inputs
/// of those matrices that have an adapter.
[[nodiscard]] MemoryForecast forecast_fine_tuning(const DecoderConfig& c, double weights_bytes,
                                                  const LoraConfig& lora, std::int64_t trainable,
                                                  std::int64_t tokens);

/// Memory of a forward pass over `tokens` tokens: temporaries of one layer and, with `logits`, the
/// logits of every position.
[[nodiscard]] MemoryForecast forecast_inference(const DecoderConfig& c, double weights_bytes,
                                                std::int64_t tokens, bool logits);

/// Operations of forward and backward per token, with a frozen base: 2 per weight that the token
/// passes in the forward pass, 2 more for the gradient of the activations; 6 per adapter weight;
/// attention over a sequence of `length` tokens.
[[nodiscard]] double forecast_flops_per_token(const DecoderConfig& c, std::int64_t trainable,
                                              double length);

/// Measures f32 operations per second of a matrix product with the sizes of the model, in a
/// twentieth of a second. forecast_flops_per_token divided by it is the time per token.
[[nodiscard]] double measured_flops_per_second(const DecoderConfig& c);

}  // namespace espalier

#ifdef ESP_BODIES
#include <espalier/core/clock.hpp>
#include <espalier/ops/linear.hpp>

namespace espalier {

namespace detail {

/// Number of values per token in one layer.
struct LayerWidths {
  double h, q, kv, f, k, e, shared;

  LayerWidths(const DecoderConfig& c, std::int64_t layer) {
    const auto d = [](std::int64_t v) { return static_cast<double>(v); };
    const bool latent = c.attention.latent.kv_rank > 0;
    const bool sparse = c.has_mixture(layer);
    h = d(c.hidden_size);
    q = d(c.attention.heads * c.attention.head_dim);
    kv = latent ? q : d(c.attention.kv_heads * c.attention.head_dim);
    f = d(sparse ? c.mixture.width : c.intermediate_size);
    k = sparse ? d(c.mixture.router.top_k) : 1;
    e = sparse ? d(c.mixture.experts) : 0;
    shared = sparse ? d(c.mixture.shared_width) : 0;
  }
  double passing() const { return 4 * h + 2 * q + 4 * kv + k * (2 * h + 3 * f) + 3 * shared; }
};

// Covers freed blocks that the pool keeps for reuse. Measured is 0.95 to 1.0; the rest is a margin.
inline constexpr double kPoolMargin = 1.1;

}  // namespace detail

ESP_INLINE std::int64_t lora_parameters(const DecoderConfig& c, std::int64_t r,
                                        const std::vector<std::string>& targets) {
  std::int64_t sum = 0;
  for (const LinearModule& m : linear_modules(c)) {
    const std::string_view target = target_of(m.part);
    if (std::find(targets.begin(), targets.end(), target) != targets.end()) {
      sum += r * (m.in + m.out);
    }
  }
  return sum;
}

ESP_INLINE MemoryForecast forecast_fine_tuning(const DecoderConfig& c, double weights_bytes,
                                               const LoraConfig& lora, std::int64_t trainable,
                                               std::int64_t tokens) {
  const std::vector<std::string> targets = resolve_targets(c, lora.targets);
  const auto adapts = [&](std::initializer_list<const char*> some) {
    for (const char* t : some) {
      if (std::find(targets.begin(), targets.end(), t) != targets.end()) return 1.0;
    }
    return 0.0;
  };
  const double copies = lora.dropout > 0 ? 2 : 1;  // with dropout an adapted input is kept twice
  double kept = 0, passing = 0;
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) {
    const detail::LayerWidths w(c, l);
    // Inputs of the norms; q, k, v after rope and the output of attention; gate, up and output of
    // the routed rows.
    kept += 2 * w.h + 2 * w.q + 2 * w.kv + 2 * w.e + w.k * (2 * w.f + w.h) + 2 * w.shared;
    kept += copies * (w.h * (adapts({"q", "k", "v", "q_a", "kv_a"}) + adapts({"router"})) +
                      w.k * (w.h * adapts({"gate", "up"}) + w.f * adapts({"down"})) +
                      w.shared * adapts({"down"}));
    passing = std::max(passing, w.passing());
  }
  const double n = static_cast<double>(tokens);
  const double logits = std::min(n * static_cast<double>(c.vocab_size), 0x1p23) +
                        n * static_cast<double>(c.hidden_size);
  MemoryForecast m;
  m.weights_bytes = weights_bytes;
  m.adapter_bytes = 2 * 4 * static_cast<double>(trainable);
  m.optimizer_bytes = 2 * 4 * static_cast<double>(trainable);
  m.activation_bytes = detail::kPoolMargin * 4 * (n * (kept + passing) + logits);
  return m;
}

ESP_INLINE MemoryForecast forecast_inference(const DecoderConfig& c, double weights_bytes,
                                             std::int64_t tokens, bool logits) {
  double passing = 0;
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) {
    passing = std::max(passing, detail::LayerWidths(c, l).passing());
  }
  const double n = static_cast<double>(tokens);
  MemoryForecast m;
  m.weights_bytes = weights_bytes;
  m.activation_bytes = detail::kPoolMargin * 4 * n * passing;
  if (logits) m.activation_bytes += 4 * n * static_cast<double>(c.vocab_size);
  return m;
}

ESP_INLINE double forecast_flops_per_token(const DecoderConfig& c, std::int64_t trainable,
                                           double length) {
  const MixtureConfig& m = c.mixture;
  double met = static_cast<double>(c.hidden_size) * static_cast<double>(c.vocab_size);
  for (const LinearModule& matrix : linear_modules(c)) {
    const double share = matrix.expert < 0
                             ? 1.0
                             : static_cast<double>(m.router.top_k) / static_cast<double>(m.experts);
    met += share * static_cast<double>(matrix.out) * static_cast<double>(matrix.in);
  }
  const double q = static_cast<double>(c.attention.heads * c.attention.head_dim);
  const double attention =  // scores and weighted sum, causal
      static_cast<double>(c.num_hidden_layers) * 2 * q * (length / 2);
  return 4 * met + 6 * attention + 6 * static_cast<double>(trainable);
}

ESP_INLINE double measured_flops_per_second(const DecoderConfig& c) {
  const std::int64_t rows = 128, in = std::min<std::int64_t>(c.hidden_size, 1024);
  const std::int64_t width = c.has_mixture() ? c.mixture.width : c.intermediate_size;
  const std::int64_t out = std::min<std::int64_t>(width, 2048);
  const NoGrad no_grad;
  const Var<float> x(Tensor<float>(Shape{rows, in}, 0.5f));
  const AnyVar w(Tensor<float>(Shape{out, in}, 0.5f));
  (void)linear(x, w);  // warms caches and threads
  const double begin = monotonic_seconds();
  double seconds = 0, flops = 0;
  while (seconds < 0.05) {
    (void)linear(x, w);
    flops += 2.0 * static_cast<double>(rows * in * out);
    seconds = monotonic_seconds() - begin;
  }
  return flops / seconds;
}

}  // namespace espalier
#endif
