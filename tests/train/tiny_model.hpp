// SPDX-License-Identifier: Apache-2.0
// A small random Mixtral with adapters, for tests of what trains it.
#pragma once

#include <espalier/models/mixtral.hpp>

namespace espalier::test {

inline MixtralConfig tiny_config() {
  MixtralConfig c;
  c.hidden_size = 16;
  c.intermediate_size = 24;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 4;
  c.num_local_experts = 4;
  c.num_experts_per_tok = 2;
  c.vocab_size = 64;
  c.rope_theta = 10000;
  return c;
}

/// Weights by name: normal of scale 0.3, norms one.
inline Mixtral<float> tiny_model(const LoraConfig& lora, std::uint64_t seed = 1,
                                 const MixtralConfig& c = tiny_config()) {
  const auto shape_of = [c](const std::string& name) -> Shape {
    const auto ends = [&](const char* end) { return name.ends_with(end); };
    if (ends("norm.weight")) return {c.hidden_size};
    if (ends("embed_tokens.weight") || ends("lm_head.weight")) return {c.vocab_size, c.hidden_size};
    if (ends("gate.weight")) return {c.num_local_experts, c.hidden_size};
    if (ends("w2.weight")) return {c.hidden_size, c.intermediate_size};
    if (ends("w1.weight") || ends("w3.weight")) return {c.intermediate_size, c.hidden_size};
    const bool kv = ends("k_proj.weight") || ends("v_proj.weight");
    return {(kv ? c.num_key_value_heads : c.num_attention_heads) * c.head_dim, c.hidden_size};
  };
  Mixtral<float> model(c, [&](const std::string& name) -> AnyTensor {
    const Tensor<float> w(shape_of(name));
    const Philox random(seed, stream_of(name));
    for (std::int64_t i = 0; i < w.numel(); ++i) {
      const auto index = static_cast<std::uint64_t>(i);
      w[i] = w.shape().rank() == 1 ? 1.0f : 0.3f * random.normal(index);
    }
    return w;
  });
  model.add_lora(lora, seed);
  return model;
}

}  // namespace espalier::test
