// SPDX-License-Identifier: Apache-2.0
// Text from a model for people: continuations of a prompt, and conversations of several turns.
//   infer::Generator<float> generator(model, words, options);
//   infer::Chat chat(generator, "Answer briefly.");
//   std::string text = chat.say("What is 12 times 7?", [](const std::string& piece) { ... }).text;
// A turn is encoded together with all earlier ones, as one conversation, and computes only the
// tokens that the KV cache lacks. An answer ends as the answers of training do: at the model's end
// tokens, and at the template's end of a turn.
#pragma once

#ifdef __CUDACC__
#error "espalier/infer/chat.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <espalier/core/clock.hpp>
#include <espalier/infer/decode.hpp>
#include <espalier/infer/stopped_text.hpp>
#include <espalier/text/chat_tokenizer.hpp>

namespace espalier::infer {

struct Answer {
  enum class End { token, stop_string, limit, cut };  // cut: by the caller
  std::string text;                                   // before the stop string
  std::vector<ChosenToken> tokens;  // without the end token, with those of a stop string
  End end = End::token;
  std::int64_t prompt_tokens = 0, reused_tokens = 0;
  double prefill_seconds = 0, decode_seconds = 0;
};

/// "stop" for a token or text that ends, "length" for the limit, "cut" for the caller.
[[nodiscard]] inline const char* name_of(Answer::End end) {
  return end == Answer::End::limit ? "length" : end == Answer::End::cut ? "cut" : "stop";
}

struct GeneratorOptions {
  DecodeOptions decode;
  std::vector<std::string> stop;  // texts that end an answer, which does not include them
};

/// Gets each piece of text once it is certain; false ends the answer.
using OnText = std::function<bool(const std::string& piece)>;

template <FloatElement T, Device D = Cpu>
class Generator {
 public:
  /// `model` must outlive it.
  Generator(const Decoder<T, D>& model, text::ChatTokenizer words, GeneratorOptions options)
      : vocabulary_(model.config().vocab_size),
        session_(model),
        words_(std::move(words)),
        options_(std::move(options)),
        ends_(model.config().eos_token_ids),
        turn_end_id_(words_.turn_end_id()) {
    if (const auto eos = words_.tokenizer().eos_id()) ends_.push_back(*eos);
  }

  const text::ChatTokenizer& words() const { return words_; }
  DecodeOptions& decode_options() { return options_.decode; }

  /// Continues a prompt of at least one token. `turn`: the prompt is a conversation, and the
  /// template's end of a turn ends the answer too.
  /// @throws FormatError for ids beyond the model's vocabulary
  Answer answer(const std::vector<std::int32_t>& prompt, bool turn, const OnText& on_text) {
    words_.tokenizer().require_within(prompt, vocabulary_);
    std::vector<std::string> stop = options_.stop;
    if (turn && !turn_end_id_) stop.push_back(words_.chat()->turn_end());
    StoppedText text(words_.tokenizer(), prompt, stop);
    Answer answer;
    answer.end = Answer::End::limit;
    std::string_view before = turn ? words_.chat()->before_answer() : "";
    const auto show = [&] {
      std::string piece = text.take_settled();
      if (piece.starts_with(before)) piece.erase(0, before.size());
      if (piece.empty()) return true;
      before = {};
      answer.text += piece;
      return !on_text || on_text(piece);
    };
    const double begin = monotonic_seconds();
    double prompt_done = begin;
    (void)session_.decode(
        prompt, options_.decode,
        [&](const ChosenToken& token) {
          return take(token, turn, text, answer) && go_on(show, answer);
        },
        [&] { prompt_done = monotonic_seconds(); });
    text.finish();
    (void)show();
    answer.prompt_tokens = std::ssize(prompt);
    answer.reused_tokens = session_.reused();
    answer.prefill_seconds = prompt_done - begin;
    answer.decode_seconds = monotonic_seconds() - prompt_done;
    return answer;
  }

 private:
  /// False if the token ends the answer.
  bool take(const ChosenToken& token, bool turn, StoppedText& text, Answer& answer) const {
    const bool ends = std::find(ends_.begin(), ends_.end(), token.id) != ends_.end();
    if (ends || (turn && token.id == turn_end_id_)) {
      answer.end = Answer::End::token;
      return false;
    }
    answer.tokens.push_back(token);
    if (!text.push(token.id)) return true;
    answer.end = Answer::End::stop_string;
    return false;
  }
  template <class Show>
  static bool go_on(const Show& show, Answer& answer) {
    if (show()) return true;
    answer.end = Answer::End::cut;
    return false;
  }

  std::int64_t vocabulary_;
  DecodeSession<T, D> session_;
  text::ChatTokenizer words_;
  GeneratorOptions options_;
  std::vector<std::int32_t> ends_;
  std::optional<std::int32_t> turn_end_id_;  // empty: it is several tokens, found as text
};

/// A conversation with a model.
template <FloatElement T, Device D = Cpu>
class Chat {
 public:
  /// `generator` must outlive it. `system`: empty for the template's default.
  /// @throws FormatError without a chat template
  explicit Chat(Generator<T, D>& generator, const std::string& system = {})
      : generator_(&generator) {
    ESP_REQUIRE(generator.words().chat(), FormatError, generator.words().why_none());
    if (!system.empty()) messages_.push_back({"system", system});
  }

  /// The ids of the conversation so far and a user's message, ready for the answer.
  std::vector<std::int32_t> prompt(const std::string& message) const {
    std::vector<text::Message> all = messages_;
    all.push_back({"user", message});
    return generator_->words().encode_chat(all, true);
  }

  /// The answer to a user's message; both join the conversation. An answer that was cut joins as
  /// far as it came.
  Answer say(const std::string& message, const OnText& on_text) {
    Answer answer = generator_->answer(prompt(message), true, on_text);
    messages_.push_back({"user", message});
    messages_.push_back({"assistant", answer.text});
    ++generator_->decode_options().sequence;
    return answer;
  }

  const std::vector<text::Message>& messages() const { return messages_; }

 private:
  Generator<T, D>* generator_;
  std::vector<text::Message> messages_;
};

}  // namespace espalier::infer
