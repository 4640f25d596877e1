// SPDX-License-Identifier: Apache-2.0
// The inputs of a model's forward pass: packed tokens, and the settings of training.
#pragma once

#include <cstdint>
#include <vector>

#include <espalier/tensor/tensor.hpp>

namespace espalier {

/// Concatenated sequences without padding. Sequence s is ids[segments[s] .. segments[s+1]); each is
/// causal on its own, and its positions start at 0 (or where its cache ends).
struct PackedTokens {
  std::vector<std::int32_t> ids;       // [N]
  std::vector<std::int64_t> segments;  // [S + 1]

  PackedTokens() = default;
  PackedTokens(std::vector<std::int32_t> tokens, std::vector<std::int64_t> offsets)
      : ids(std::move(tokens)), segments(std::move(offsets)) {}
  /// One sequence.
  explicit PackedTokens(std::vector<std::int32_t> tokens) : ids(std::move(tokens)) {
    segments = {0, static_cast<std::int64_t>(ids.size())};
  }
  std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
};

/// The position of each token in its sequence, [N]. Sequence s begins at starts[s], by default 0.
[[nodiscard]] inline Tensor<std::int32_t> positions_of(
    const PackedTokens& tokens, const std::vector<std::int64_t>& starts = {}) {
  Tensor<std::int32_t> positions(Shape{tokens.tokens()});
  for (std::size_t s = 0; s + 1 < tokens.segments.size(); ++s) {
    const std::int64_t start = starts.empty() ? 0 : starts[s];
    for (std::int64_t i = tokens.segments[s]; i < tokens.segments[s + 1]; ++i) {
      positions[i] = static_cast<std::int32_t>(start + i - tokens.segments[s]);
    }
  }
  return positions;
}

/// Settings of training: dropout and the auxiliary loss. `step` counts micro-batches; each draws
/// its own dropout masks.
struct TrainContext {
  bool want_aux = false;
  std::uint64_t dropout_seed = 0;
  std::uint64_t step = 0;
  bool recompute_layers = false;  // recompute in backward: less memory, more time, equal bits
};

}  // namespace espalier
