// SPDX-License-Identifier: Apache-2.0
// What an evaluation asks of a model: how likely is this continuation, and how would you go on.
// Tasks know only this interface, so that they are tested without weights.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace espalier::infer {

/// Asked for: log p(continuation | context). The context has at least one token.
struct Continuation {
  std::vector<std::int32_t> context, continuation;
};

struct Likelihood {
  double log_prob = 0;  // summed over the continuation
  bool greedy = true;   // each of its tokens is the most likely one
};

struct Completion {
  std::vector<std::int32_t> ids;  // all that were generated, those of a stop string included
  std::string text;               // before the stop string
  bool hit_limit = false;         // cut off by the limit of new tokens
};

class LanguageModel {
 public:
  using OnDone = std::function<void(std::size_t index, Completion completion)>;

  virtual ~LanguageModel() = default;

  /// In the order of `items`. What else is in the batch does not change a result.
  virtual std::vector<Likelihood> score(std::span<const Continuation> items) = 0;

  /// Greedy continuations of at most `max_new_tokens`; each text ends before the first of the
  /// `stop` strings. `on_done` is called for each as it is finished, in no particular order.
  virtual void generate(std::span<const std::vector<std::int32_t>> prompts, int max_new_tokens,
                        std::span<const std::string> stop, const OnDone& on_done) = 0;

  /// Called after every forward pass with the tokens it took in; what it throws ends the work.
  std::function<void(std::int64_t tokens)> on_pass;
};

}  // namespace espalier::infer
