// SPDX-License-Identifier: Apache-2.0
// A calibration pass: runs texts through the model and sums the activations of its experts. Each
// text is a sequence of its own; nothing is packed or padded, so every token counts once.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/calibrate.hpp is host-only; include it from a .cpp"
#endif

#include <functional>

#include <espalier/data/calibration.hpp>
#include <espalier/models/decoder.hpp>
#include <espalier/prune/activation_scores.hpp>

namespace espalier::prune {

/// `progress` gets the tokens done so far, after each sequence, and may throw to stop.
template <FloatElement T, Device D>
[[nodiscard]] ActivationScores calibrate(const Decoder<T, D>& model,
                                         const data::CalibrationSet& set,
                                         const std::function<void(std::int64_t)>& progress) {
  const DecoderConfig& c = model.config();
  ActivationScores scores(c.num_hidden_layers, c.mixture.experts);
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) {
    if (!c.has_mixture(l)) scores.remove_layer(l);
  }
  const MoeObserver<T, D> observer = [&](const MoeObservation<T, D>& o) {
    const Routing& routing = on_host(o.routing);
    const Tensor<acc_t<T>> weights(o.weights.on_host());
    const Tensor<T> outputs(o.outputs.on_host());
    std::vector<acc_t<T>> gates(static_cast<std::size_t>(routing.rows()));
    for (std::size_t row = 0; row < gates.size(); ++row) {
      gates[row] = weights[routing.slot_of_row[static_cast<std::int64_t>(row)]];
    }
    scores.add<T>(o.layer, routing.offsets, gates, outputs.span(), c.hidden_size);
  };
  std::int64_t done = 0;
  for (const std::vector<std::int32_t>& sequence : set.sequences) {
    const NoGrad no_grad;
    (void)model.hidden(PackedTokens(sequence), &observer);
    done += static_cast<std::int64_t>(sequence.size());
    if (progress) progress(done);
  }
  return scores;
}

}  // namespace espalier::prune
