// SPDX-License-Identifier: Apache-2.0
// The options of how a text is generated.
#pragma once

#include <espalier/infer/chat.hpp>

#include "cli/program.hpp"

namespace espalier {

/// Declares --max-new-tokens, --stop, --logprobs and the filters of sampling, in their order.
inline void declare_generation(CLI::App& app, infer::GeneratorOptions& options) {
  const char* group = "Generation";
  infer::DecodeOptions& decode = options.decode;
  infer::SamplingOptions& s = decode.sampling;
  app.add_option("--max-new-tokens", decode.max_new_tokens, "Stop after that many")
      ->check(integer_within(1, 1 << 20))
      ->group(group);
  app.add_option("--stop", options.stop, "Stop before this text; may be repeated")
      ->allow_extra_args(false)
      ->group(group);
  app.add_option("--repetition-penalty", s.repetition_penalty,
                 "Divides positive logits of tokens in prompt and answer, multiplies the others")
      ->check(real_within(0.01, 100))
      ->group(group);
  app.add_option("--temperature", s.temperature, "0 is greedy")
      ->check(real_within(0, 100))
      ->group(group);
  app.add_option("--top-k", s.top_k, "Draw from that many likeliest tokens; 0: from all")
      ->check(integer_within(0, 1 << 30))
      ->group(group);
  app.add_option("--top-p", s.top_p,
                 "Draw from the likeliest tokens that reach this probability together")
      ->check(real_within(1e-6, 1))
      ->group(group);
  app.add_option("--min-p", s.min_p,
                 "Draw from tokens with at least this share of the likeliest one's probability")
      ->check(real_within(0, 1))
      ->group(group);
  app.add_option("--logprobs", decode.log_probs,
                 "With --json and --prompts: log probabilities of each token and the N likeliest")
      ->check(integer_within(0, 1000))
      ->default_str("none")
      ->group(group);
}

}  // namespace espalier
