// SPDX-License-Identifier: Apache-2.0
// Generates one sequence, token by token, for display. engine.hpp decodes many sequences at once.
#pragma once

#ifdef __CUDACC__
#error "espalier/infer/decode.hpp is host-only; include it from a .cpp"
#endif

#include <functional>
#include <vector>

#include <espalier/core/random.hpp>
#include <espalier/infer/prefix_steps.hpp>
#include <espalier/infer/sampling.hpp>
#include <espalier/models/decoder.hpp>

namespace espalier::infer {

struct DecodeOptions {
  std::int64_t max_new_tokens = 256;
  SamplingOptions sampling;
  std::uint64_t seed = 0;
  std::uint64_t sequence = 0;   // sequences with other numbers draw other random numbers
  std::int64_t log_probs = -1;  // report that many of the most likely tokens; -1: none, not even
                                // that of the chosen one
};

/// A generated token. `log_probs`: its own, then those of the most likely ones, if asked for.
struct ChosenToken {
  std::int32_t id = 0;
  std::vector<TokenLogProb> log_probs;
};

/// Decodes with one KV cache. A prompt that begins like what the cache holds, as the next turn of a
/// chat does, computes only what is new. The results have the bits of a new session.
template <FloatElement T, Device D = Cpu>
class DecodeSession {
 public:
  /// Shares the weights of `model`, which must outlive the session.
  explicit DecodeSession(const Decoder<T, D>& model) : model_(&model), cache_(model.new_cache(1)) {}

  /// Continues `prompt`, which has at least one token, until `on_token` returns false or the limit
  /// is reached; returns the new tokens. `on_token(token)` gets each as it is chosen; `on_prompt()`
  /// is called after the prompt's forward pass.
  std::vector<std::int32_t> decode(const std::vector<std::int32_t>& prompt,
                                   const DecodeOptions& options,
                                   const std::function<bool(const ChosenToken&)>& on_token,
                                   const std::function<void()>& on_prompt = {}) {
    Tensor<T, D> hidden = enter(prompt);
    hidden = hidden.rows(hidden.shape(0) - 1, hidden.shape(0));
    if (on_prompt) on_prompt();
    const Philox random(options.seed, stream_of("generate") + options.sequence);
    std::vector<std::int32_t> ids;
    while (std::ssize(ids) < options.max_new_tokens) {
      const ChosenToken token = choose(hidden, options, random.uniform(ids.size()));
      ids.push_back(token.id);
      if (!on_token(token) || std::ssize(ids) == options.max_new_tokens) break;
      hidden = run({token.id});
    }
    return ids;
  }

  /// Of the last prompt, how many tokens the cache held already.
  std::int64_t reused() const { return reused_; }

 private:
  /// Makes the cache hold `prompt`; returns the hidden states of what was new.
  Tensor<T, D> enter(const std::vector<std::int32_t>& prompt) {
    ESP_REQUIRE(!prompt.empty(), UsageError, "a prompt without tokens");
    reused_ = std::min(common_prefix(held_, prompt), std::ssize(prompt) - 1);
    cache_.truncate(reused_);
    held_.resize(static_cast<std::size_t>(reused_));
    return run({prompt.begin() + reused_, prompt.end()});
  }
  Tensor<T, D> run(const std::vector<std::int32_t>& ids) {
    KvCache<T, D>* caches[] = {&cache_};
    const Tensor<T, D> hidden = model_->hidden(PackedTokens(ids), caches);
    held_.insert(held_.end(), ids.begin(), ids.end());
    return hidden;
  }
  ChosenToken choose(const Tensor<T, D>& hidden, const DecodeOptions& options,
                     double uniform) const {
    const Tensor<float> logits(model_->logits(hidden).on_host());
    const std::span<float> z(logits.data(), static_cast<std::size_t>(logits.numel()));
    require_finite_output(std::span<const float>(z));
    std::vector<float> raw;
    if (options.log_probs >= 0) raw.assign(z.begin(), z.end());
    penalize_repetition(z, held_, options.sampling.repetition_penalty);
    ChosenToken token{sample(logits, options.sampling, uniform), {}};
    if (options.log_probs >= 0) {
      token.log_probs = log_probs_of(raw, token.id, static_cast<std::size_t>(options.log_probs));
    }
    return token;
  }

  const Decoder<T, D>* model_;
  KvCache<T, D> cache_;
  std::vector<std::int32_t> held_;  // what the cache holds
  std::int64_t reused_ = 0;
};

}  // namespace espalier::infer
