// SPDX-License-Identifier: Apache-2.0
// Generates one sequence, token by token, for display. engine.hpp decodes many sequences at once.
#pragma once

#ifdef __CUDACC__
#error "espalier/infer/decode.hpp is host-only; include it from a .cpp"
#endif

#include <functional>
#include <vector>

#include <espalier/core/random.hpp>
#include <espalier/infer/sampling.hpp>
#include <espalier/models/decoder.hpp>

namespace espalier::infer {

struct DecodeOptions {
  std::int64_t max_new_tokens = 256;
  SamplingOptions sampling;
  std::uint64_t seed = 0;
};

/// Continues `prompt` until `on_token` returns false or the limit is reached; returns the new
/// tokens. `on_token(id)` gets each token as it is chosen; `on_prompt()` is called after the
/// prompt's forward pass.
template <FloatElement T, Device D>
std::vector<std::int32_t> decode(const Decoder<T, D>& model,
                                 const std::vector<std::int32_t>& prompt,
                                 const DecodeOptions& options,
                                 const std::function<bool(std::int32_t)>& on_token,
                                 const std::function<void()>& on_prompt = {}) {
  auto cache = model.new_cache(std::ssize(prompt) + options.max_new_tokens);
  KvCache<T, D>* caches[] = {&cache};
  auto hidden = model.hidden(PackedTokens(prompt), caches);
  hidden = hidden.rows(hidden.shape(0) - 1, hidden.shape(0));
  if (on_prompt) on_prompt();
  const Philox random(options.seed, stream_of("generate"));
  std::vector<std::int32_t> ids;
  while (std::ssize(ids) < options.max_new_tokens) {
    const Tensor<float> logits(model.logits(hidden).on_host());
    ids.push_back(sample(logits, options.sampling, random.uniform(ids.size())));
    if (!on_token(ids.back()) || std::ssize(ids) == options.max_new_tokens) break;
    hidden = model.hidden(PackedTokens({ids.back()}), caches);
  }
  return ids;
}

}  // namespace espalier::infer
