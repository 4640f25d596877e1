// SPDX-License-Identifier: Apache-2.0
// The configuration of a decoder-only language model, dense or with a mixture of experts in some
// layers. Every family of models/families/ sets these numbers; the defaults are Mixtral 8x7B. A
// plain struct: hub/json_config.hpp reads config.json.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <espalier/models/tensor_names.hpp>
#include <espalier/nn/attention.hpp>
#include <espalier/nn/feed_forward.hpp>
#include <espalier/ops/router_top_k.hpp>

namespace espalier {

/// How a checkpoint stores the matrices of a layer's experts.
enum class ExpertStorage : std::uint8_t {
  separate,    // a tensor per expert and matrix: [F, H], [F, H], [H, F]
  fused,       // gate rows, then up rows [E, 2F, H]; down [E, H, F]
  interleaved  // transposed; gate in the even, up in the odd columns [E, H, 2F]; down [E, F, H]
};

struct MixtureConfig {
  std::int64_t experts = 8;    // 0: a dense model
  std::int64_t width = 14336;  // inside one expert
  RouterRule router;
  bool router_bias = false;     // of the router's linear layer
  bool selection_bias = false;  // added to the scores for the choice only
  bool expert_bias = false;
  Activation activation;
  ExpertStorage storage = ExpertStorage::separate;
  std::int64_t shared_width = 0;  // of the shared expert; 0: none
  bool shared_router = false;     // its output is weighted by the sigmoid of a linear layer
  /// Layers that have a mixture; empty: all.
  std::vector<bool> layers;
};

struct DecoderConfig {
  std::string model_type = "mixtral";
  std::int64_t hidden_size = 4096;
  std::int64_t intermediate_size = 14336;  // of feed-forward layers without a mixture
  std::int64_t num_hidden_layers = 32;
  std::int64_t vocab_size = 32000;
  std::int64_t max_position_embeddings = 32768;
  AttentionConfig attention;
  /// Layers with full attention in a model with a sliding window; empty: none.
  std::vector<bool> full_layers;
  MixtureConfig mixture;
  bool mlp_bias = false;  // of feed-forward layers without a mixture
  double rms_norm_eps = 1e-5;
  double embedding_multiplier = 1, residual_multiplier = 1;
  double logits_divisor = 1;
  double router_aux_loss_coef = 0.001;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  std::int32_t bos_token_id = 1;                  // -1: none
  std::int32_t pad_token_id = -1;                 // -1: none
  std::vector<std::int32_t> eos_token_ids = {2};  // the first one ends texts in training
  TensorNames names = mixtral_names();

  /// True if any layer has a mixture.
  bool has_mixture() const { return mixture.experts > 0; }
  bool has_mixture(std::int64_t layer) const {
    return has_mixture() &&
           (mixture.layers.empty() || mixture.layers[static_cast<std::size_t>(layer)]);
  }
  /// The sliding window of layer `layer`, in tokens; 0: none.
  std::int64_t window(std::int64_t layer) const {
    const bool full = !full_layers.empty() && full_layers[static_cast<std::size_t>(layer)];
    return full ? 0 : attention.window;
  }
};

}  // namespace espalier
