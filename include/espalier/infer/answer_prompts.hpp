// SPDX-License-Identifier: Apache-2.0
// Greedy answers to many prompts at once: the batches of engine.hpp with the rules of chat.hpp.
#pragma once

#ifdef __CUDACC__
#error "espalier/infer/answer_prompts.hpp is host-only; include it from a .cpp"
#endif

#include <functional>
#include <string>
#include <vector>

#include <espalier/infer/chat.hpp>
#include <espalier/infer/engine.hpp>
#include <espalier/infer/prompts.hpp>

namespace espalier::infer {

/// Answers prompts, of which `ids` are the tokens (encode_prompt), up to `batch` at a time; takes
/// the limit and the stop strings of `options`. The tokens are those that Generator finds with
/// temperature 0. If one of the prompts is a conversation, the template's end of a turn ends all.
/// `on_pass()` is called after every forward pass; an exception of it ends the work.
template <FloatElement T, Device D>
void answer_together(const Decoder<T, D>& model, const text::ChatTokenizer& words,
                     const std::vector<Prompt>& prompts,
                     const std::vector<std::vector<std::int32_t>>& ids,
                     const GeneratorOptions& options, std::int64_t batch,
                     const std::function<void()>& on_pass, const LanguageModel::OnDone& on_done) {
  EngineOptions engine_options;
  engine_options.batch = batch;
  std::vector<std::string> stop = options.stop;
  const bool turns = std::any_of(prompts.begin(), prompts.end(),
                                 [](const Prompt& p) { return !p.messages.empty(); });
  if (turns) {
    const auto end = words.turn_end_id();
    if (end) engine_options.end_tokens.push_back(*end);
    if (!end) stop.push_back(words.chat()->turn_end());
  }
  DecoderEngine<T, D> engine(model, words.tokenizer(), engine_options);
  engine.on_pass = [&](std::int64_t) { on_pass(); };
  engine.generate(ids, static_cast<int>(options.decode.max_new_tokens), stop,
                  [&](std::size_t i, Completion c) {
                    if (!prompts[i].messages.empty()) {
                      const std::string_view before = words.chat()->before_answer();
                      if (c.text.starts_with(before)) c.text.erase(0, before.size());
                    }
                    on_done(i, std::move(c));
                  });
}

}  // namespace espalier::infer
