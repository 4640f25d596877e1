// SPDX-License-Identifier: Apache-2.0
// The numbers that fix a Mixtral-layout model, as config.json names them. A plain struct: reading
// JSON is the work of io/config.hpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace espalier {

struct MixtralConfig {
  std::string model_type = "mixtral";  // "llama": dense, num_local_experts is 0
  std::int64_t hidden_size = 4096;
  std::int64_t intermediate_size = 14336;
  std::int64_t num_hidden_layers = 32;
  std::int64_t num_attention_heads = 32;
  std::int64_t num_key_value_heads = 8;
  std::int64_t head_dim = 128;
  std::int64_t num_local_experts = 8;
  std::int64_t num_experts_per_tok = 2;
  std::int64_t vocab_size = 32000;
  std::int64_t max_position_embeddings = 32768;
  std::int64_t sliding_window = 0;  // 0: every earlier token
  double rms_norm_eps = 1e-5;
  double rope_theta = 1e6;
  double router_aux_loss_coef = 0.001;
  double initializer_range = 0.02;
  bool tie_word_embeddings = false;
  std::int32_t bos_token_id = 1;   // -1: none
  std::int32_t pad_token_id = -1;  // -1: none
  std::vector<std::int32_t> eos_token_ids = {2};
};

}  // namespace espalier
