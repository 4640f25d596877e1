// SPDX-License-Identifier: Apache-2.0
// A small random Mixtral with adapters, for tests of what trains it.
#pragma once

#include <espalier/models/decoder.hpp>

#include "support/tiny_config.hpp"

namespace espalier::test {

/// Weights by name: normal of scale 0.3, norms one.
inline Decoder<float> tiny_model(const LoraConfig& lora, std::uint64_t seed = 1,
                                 const DecoderConfig& c = tiny_config()) {
  const auto shape_of = [c](const std::string& name) -> Shape {
    const auto ends = [&](const char* end) { return name.ends_with(end); };
    if (ends("norm.weight")) return {c.hidden_size};
    if (ends("embed_tokens.weight") || ends("lm_head.weight")) return {c.vocab_size, c.hidden_size};
    if (ends("gate.weight")) return {c.mixture.experts, c.hidden_size};
    if (ends("w2.weight")) return {c.hidden_size, c.mixture.width};
    if (ends("w1.weight") || ends("w3.weight")) return {c.mixture.width, c.hidden_size};
    const bool kv = ends("k_proj.weight") || ends("v_proj.weight");
    return {(kv ? c.attention.kv_heads : c.attention.heads) * c.attention.head_dim, c.hidden_size};
  };
  Decoder<float> model(c, [&](const std::string& name) -> AnyTensor {
    Tensor<float> w(shape_of(name));
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
