// SPDX-License-Identifier: Apache-2.0
// Chooses the next token from its logits, which must be finite. The filters apply in the order of
// transformers: repetition penalty, temperature, top-k, top-p, min-p. Each of the last three keeps
// the likeliest token.
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
  std::int64_t top_k = 0;  // draw from that many likeliest tokens, and their equals; 0: from all
  double min_p = 0;        // draw from tokens at least that likely in relation to the likeliest
  double repetition_penalty = 1;  // of tokens in prompt and output: see penalize_repetition
};

/// A token and its log probability: that of the model's softmax, before any filter.
struct TokenLogProb {
  std::int32_t id = 0;
  double log_prob = 0;
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

/// Makes the tokens of `seen` less likely, each once: divides positive logits by `penalty` and
/// multiplies the others with it (CTRL, Keskar et al. 2019, arXiv:1909.05858, with the sign rule of
/// transformers). A penalty of 1 changes nothing, one below 1 rewards.
/// @param seen ids below V
ESP_INLINE void penalize_repetition(std::span<float> logits, std::span<const std::int32_t> seen,
                                    double penalty) {
  if (penalty == 1) return;
  std::vector<std::int32_t> distinct(seen.begin(), seen.end());
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  const auto factor = static_cast<float>(penalty);
  for (const std::int32_t id : distinct) {
    float& z = logits[static_cast<std::size_t>(id)];
    z = z < 0 ? z * factor : z / factor;
  }
}

/// Log probabilities of `chosen`, first, and of the `count` most likely tokens, in falling order
/// and the lowest id first among equals. Sums in double.
[[nodiscard]] ESP_INLINE std::vector<TokenLogProb> log_probs_of(std::span<const float> logits,
                                                                std::int32_t chosen,
                                                                std::size_t count) {
  const double top = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float z : logits) sum += std::exp(static_cast<double>(z) - top);
  const double log_sum = top + std::log(sum);
  std::vector<std::int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  count = std::min(count, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                    [&](std::int32_t a, std::int32_t b) {
                      const float x = logits[static_cast<std::size_t>(a)];
                      const float y = logits[static_cast<std::size_t>(b)];
                      return x > y || (x == y && a < b);
                    });
  order.resize(count);
  order.insert(order.begin(), chosen);
  std::vector<TokenLogProb> result;
  for (const std::int32_t id : order) {
    result.push_back({id, static_cast<double>(logits[static_cast<std::size_t>(id)]) - log_sum});
  }
  return result;
}

namespace detail {

/// How many of the weights p [V], in falling order, the filters leave.
inline std::size_t kept_by_filters(const std::vector<double>& p, const SamplingOptions& options) {
  std::size_t within = p.size();
  if (options.top_k > 0 && static_cast<std::size_t>(options.top_k) < p.size()) {
    within = static_cast<std::size_t>(options.top_k);
    while (within < p.size() && p[within] == p[within - 1]) ++within;
  }
  const auto end = p.begin() + static_cast<std::ptrdiff_t>(within);
  const double all = std::accumulate(p.begin(), end, 0.0);
  double reached = 0;
  std::size_t count = 0;
  while (count < within && (count == 0 || reached < options.top_p * all)) reached += p[count++];
  while (count > 1 && p[count - 1] < options.min_p * p[0]) --count;
  return count;
}

}  // namespace detail

/// The next token from its logits [V], without the repetition penalty, which is the caller's: the
/// most likely one, or a draw from those that top-k, top-p (nucleus sampling, Holtzman et al. 2019,
/// arXiv:1904.09751) and min-p (Nguyen et al. 2024, arXiv:2407.01082) leave. As in transformers,
/// top-k keeps all tokens that equal the last one, and top-p counts probabilities among what top-k
/// left. Other ties go to the lowest id.
/// @param uniform a random number in [0, 1)
/// @throws Error when a logit is not finite
[[nodiscard]] ESP_INLINE std::int32_t sample(const Tensor<float>& logits,
                                             const SamplingOptions& options, double uniform) {
  const float* z = logits.data();
  const auto vocabulary = static_cast<std::size_t>(logits.numel());
  const std::int32_t best = most_likely(std::span<const float>(z, vocabulary));
  if (options.temperature <= 0) return best;
  std::vector<double> weight(vocabulary);
  for (std::size_t i = 0; i < vocabulary; ++i) {
    weight[i] = std::exp((z[i] - z[best]) / options.temperature);
  }
  std::vector<std::int32_t> order(vocabulary);
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return weight[static_cast<std::size_t>(a)] > weight[static_cast<std::size_t>(b)];
  });
  std::vector<double> p(vocabulary);
  for (std::size_t i = 0; i < vocabulary; ++i) p[i] = weight[static_cast<std::size_t>(order[i])];
  const std::size_t count = detail::kept_by_filters(p, options);
  double left =
      uniform * std::accumulate(p.begin(), p.begin() + static_cast<std::ptrdiff_t>(count), 0.0);
  for (std::size_t i = 0; i < count; ++i) {
    left -= p[i];
    if (left < 0) return order[i];
  }
  return order[count - 1];
}

}  // namespace espalier::infer
