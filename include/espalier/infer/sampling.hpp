// SPDX-License-Identifier: Apache-2.0
// Chooses the next token from its logits, which must be finite.
#pragma once

#ifdef __CUDACC__
#error "espalier/infer/sampling.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/core/math.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier::infer {

struct SamplingOptions {
  double temperature = 0;  // 0: always the most likely token
  double top_p = 1;        // draw from the likeliest tokens that reach this probability together
};

/// Requires finite logits. NaN or infinity in a weight reaches all logits or some. Comparisons with
/// NaN are false, so a maximum would be taken over the other logits, without a word.
/// @throws Error naming the first value that is not finite
template <std::floating_point S>
void require_finite_output(std::span<const S> logits) {
  for (const S z : logits) {
    ESP_REQUIRE(math::is_finite(z), Error, "the model's output is ",
                math::is_nan(z) ? math::abs(static_cast<double>(z)) : static_cast<double>(z),
                ", not a finite number: its weights hold NaN or infinity, or they overflow in the "
                "type computed with");
  }
}

/// The token with the largest of its logits [V], the lowest id among equals.
/// @throws Error when a logit is not finite
template <std::floating_point S>
[[nodiscard]] std::int32_t most_likely(std::span<const S> logits) {
  require_finite_output(logits);
  return static_cast<std::int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

/// The next token from its logits [V]: the most likely one, or nucleus sampling from the smallest
/// set of most likely tokens whose probabilities reach top_p (Holtzman et al. 2019,
/// arXiv:1904.09751). Ties go to the lowest id.
/// @param uniform a random number in [0, 1)
/// @throws Error when a logit is not finite
[[nodiscard]] ESP_INLINE std::int32_t sample(const Tensor<float>& logits,
                                             const SamplingOptions& options, double uniform) {
  const float* z = logits.data();
  const auto vocabulary = static_cast<std::size_t>(logits.numel());
  const std::int32_t best = most_likely(std::span<const float>(z, vocabulary));
  if (options.temperature <= 0) return best;
  std::vector<double> p(vocabulary);
  for (std::size_t i = 0; i < vocabulary; ++i) {
    p[i] = std::exp((z[i] - z[best]) / options.temperature);
  }
  std::vector<std::int32_t> order(vocabulary);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return p[static_cast<std::size_t>(a)] > p[static_cast<std::size_t>(b)];
  });
  const auto probability = [&](std::size_t i) { return p[static_cast<std::size_t>(order[i])]; };
  const double all = std::accumulate(p.begin(), p.end(), 0.0);
  double kept = 0;
  std::size_t count = 0;
  while (count < order.size() && (count == 0 || kept < options.top_p * all)) {
    kept += probability(count++);
  }
  double left = uniform * kept;
  for (std::size_t i = 0; i < count; ++i) {
    left -= probability(i);
    if (left < 0) return order[i];
  }
  return order[count - 1];
}

}  // namespace espalier::infer
