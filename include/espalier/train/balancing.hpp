// SPDX-License-Identifier: Apache-2.0
// The models that have a load-balancing loss: mixtures with a softmax router. DeepSeek-V3 and
// GLM-4.5 balance by a selection bias instead (arXiv:2408.15664).
#pragma once

#ifdef __CUDACC__
#error "espalier/train/balancing.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/hub/checkpoint.hpp>

namespace espalier::train {

[[nodiscard]] inline bool has_balancing_loss(const DecoderConfig& c) {
  return c.has_mixture() && c.mixture.router.score == RouterRule::Score::softmax;
}

/// @throws FormatError for a dense model, or for a router without such a loss
inline void require_balancing_loss(const hub::Checkpoint& checkpoint) {
  hub::require_mixture(checkpoint, "balance");
  ESP_REQUIRE(has_balancing_loss(checkpoint.config()), FormatError, checkpoint.folder().string(),
              ": the load-balancing loss is for routers with a softmax, that of a ",
              checkpoint.family().model_type, " has a sigmoid; train it without");
}

}  // namespace espalier::train
