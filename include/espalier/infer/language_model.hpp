// SPDX-License-Identifier: Apache-2.0
// The interface of a model for evaluation: likelihoods of continuations, and generation. Tasks use
// only this interface, so they can be tested without weights.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace espalier::infer {

/// A request for log p(continuation | context). The context has at least one token.
struct Continuation {
  std::vector<std::int32_t> context, continuation;
};

struct Likelihood {
  double log_prob = 0;  // summed over the continuation
  bool greedy = true;   // each of its tokens is the most likely one
};

struct Completion {
  std::vector<std::int32_t> ids;  // all generated tokens, including those of a stop string
  std::string text;               // before the stop string
  bool hit_limit = false;         // cut off by the limit of new tokens
};

class LanguageModel {
 public:
  using OnDone = std::function<void(std::size_t index, Completion completion)>;

  virtual ~LanguageModel() = default;

  /// In the order of `items`. A result does not depend on the rest of the batch.
  virtual std::vector<Likelihood> score(std::span<const Continuation> items) = 0;

  /// Greedy continuations of at most `max_new_tokens`; each text ends before the first of the
  /// `stop` strings. `on_done` is called for each as it is finished, in no particular order.
  virtual void generate(std::span<const std::vector<std::int32_t>> prompts, int max_new_tokens,
                        std::span<const std::string> stop, const OnDone& on_done) = 0;

  /// Called after every forward pass with its number of tokens; an exception ends the work.
  std::function<void(std::int64_t tokens)> on_pass;
};

}  // namespace espalier::infer
