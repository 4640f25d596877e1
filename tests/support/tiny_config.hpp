// SPDX-License-Identifier: Apache-2.0
// The configuration of a Mixtral small enough for a test.
#pragma once

#include <espalier/models/decoder_config.hpp>

namespace espalier::test {

struct TinySizes {
  std::int64_t hidden = 16, width = 24, layers = 2, heads = 4, kv_heads = 2, experts = 4;
  std::int64_t vocab = 64;
};

/// Two experts per token; heads are hidden / heads wide.
[[nodiscard]] inline DecoderConfig tiny_config(const TinySizes& s = {}) {
  DecoderConfig c;
  c.hidden_size = s.hidden;
  c.vocab_size = s.vocab;
  c.num_hidden_layers = s.layers;
  c.mixture.width = s.width;
  c.mixture.experts = s.experts;
  c.mixture.router.top_k = 2;
  c.attention.heads = s.heads;
  c.attention.kv_heads = s.kv_heads;
  c.attention.head_dim = s.hidden / s.heads;
  c.attention.rope.theta = 10000;
  return c;
}

}  // namespace espalier::test
