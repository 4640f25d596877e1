// SPDX-License-Identifier: Apache-2.0
// A checkpoint's tokenizer and its chat template, chosen by one rule for training, calibration,
// evaluation and generation, so that prompts have the format of training.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/chat_tokenizer.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include <espalier/core/inline.hpp>
#include <espalier/io/fingerprint.hpp>
#include <espalier/text/chat_template.hpp>
#include <espalier/text/encode.hpp>
#include <espalier/text/tokenizer.hpp>

namespace espalier::text {

/// Copies share the tokenizer.
class ChatTokenizer {
 public:
  /// `asked`: "auto" for the template in `folder`, if known; "none"; or the name of a built-in one.
  /// Each uses the tokenizer's texts of BOS and EOS; without a BOS there is none in the text.
  /// @throws UsageError for an unknown name; IoError, FormatError for the tokenizer
  ESP_INLINE static ChatTokenizer load(const std::filesystem::path& folder,
                                       const std::string& asked = "auto") {
    ChatTokenizer words(Tokenizer::load(folder));
    const auto text_of = [&](std::optional<std::int32_t> id, const char* otherwise) {
      return id ? words.tokenizer_.token(*id) : std::string(otherwise);
    };
    const std::string bos = text_of(words.tokenizer_.bos_id(), "");
    const std::string eos = text_of(words.tokenizer_.eos_id(), "</s>");
    if (asked == "none") {
      words.why_none_ = "no chat template was asked for";
    } else if (asked == "auto") {
      try {
        words.chat_ = ChatTemplate::detect(folder).with_tokens(bos, eos);
      } catch (const FormatError& e) {
        words.why_none_ = e.what();
      }
    } else {
      words.chat_ = ChatTemplate::named(asked, bos, eos);
    }
    return words;
  }

  const Tokenizer& tokenizer() const { return tokenizer_; }
  const std::optional<ChatTemplate>& chat() const { return chat_; }
  /// The reason if there is no template.
  const std::string& why_none() const { return why_none_; }
  std::string template_name() const { return chat_ ? std::string(chat_->name()) : "none"; }

  /// The ids of a conversation. @throws FormatError without a template
  ESP_INLINE std::vector<std::int32_t> encode_chat(const std::vector<Message>& messages,
                                                   bool add_generation_prompt) const {
    ESP_REQUIRE(chat_, FormatError, why_none_);
    return tokenizer_.encode(chat_->render(messages, add_generation_prompt), false);
  }

  /// The id of the token that ends an assistant's message; empty without a template, or if its
  /// tokenizer spells the end with several tokens.
  ESP_INLINE std::optional<std::int32_t> turn_end_id() const {
    if (!chat_) return std::nullopt;
    const std::vector<std::int32_t> ids = tokenizer_.encode(chat_->turn_end(), false);
    return ids.size() == 1 && tokenizer_.is_special(ids[0]) ? std::optional(ids[0]) : std::nullopt;
  }

  /// Text to ids, all of them below `vocabulary`, the rows of the model's embedding.
  Encode encoder(std::int64_t vocabulary) const {
    return [tokenizer = tokenizer_, vocabulary](std::string_view text, bool add_special) {
      std::vector<std::int32_t> ids = tokenizer.encode(text, add_special);
      tokenizer.require_within(ids, vocabulary);
      return ids;
    };
  }
  /// Empty if there is no template.
  RenderChat renderer() const {
    if (!chat_) return {};
    return [chat = *chat_](const std::vector<Message>& m) { return chat.render_segments(m); };
  }

  /// A fixed conversation, rendered and encoded. A server whose template or tokenizer gives other
  /// ids does not match the training of an adapter.
  ESP_INLINE io::Json probe() const {
    io::Json probe = io::Json::object();
    probe["template"] = template_name();
    if (!chat_) return probe;
    const std::vector<Message> messages = {
        {"user", "How many apples?"}, {"assistant", "Two."}, {"user", "And pears?"}};
    io::Json list = io::Json::array();
    for (const Message& m : messages) {
      io::Json turn = io::Json::object();
      turn["role"] = m.role;
      turn["content"] = m.content;
      list.push_back(turn);
    }
    probe["messages"] = list;
    probe["text"] = chat_->render(messages, true);
    probe["ids"] = io::Json::array(encode_chat(messages, true));
    return probe;
  }

  /// Fingerprint of the tokenizer's file and of a rendered conversation.
  ESP_INLINE std::string fingerprint() const {
    io::Fingerprint print;
    print.add(io::read_text(tokenizer_.file())).add(io::dump(probe()));
    return print.text();
  }

 private:
  explicit ChatTokenizer(Tokenizer tokenizer) : tokenizer_(std::move(tokenizer)) {}

  Tokenizer tokenizer_;
  std::optional<ChatTemplate> chat_;
  std::string why_none_;
};

}  // namespace espalier::text
