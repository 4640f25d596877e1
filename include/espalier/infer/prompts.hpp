// SPDX-License-Identifier: Apache-2.0
// A file of prompts: one a line, blank lines skipped. If the first line begins with {, every line
// is JSON, {"prompt": TEXT} to continue or {"messages": [{"role": ..., "content": ...}, ...]} to
// answer; otherwise every line is a text to continue.
#pragma once

#ifdef __CUDACC__
#error "espalier/infer/prompts.hpp is host-only; include it from a .cpp"
#endif

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/inline.hpp>
#include <espalier/text/chat_tokenizer.hpp>

namespace espalier::infer {

/// A text to continue, or a conversation to answer.
struct Prompt {
  std::string where;                    // "prompts.jsonl: line 17", for messages
  std::string text;                     // without messages
  std::vector<text::Message> messages;  // the last one is the user's
};

/// Parses `content`, the text of the file `source`.
/// @throws FormatError "prompts.jsonl: line 17: ...", also for a file without prompts
[[nodiscard]] std::vector<Prompt> parse_prompts(std::string_view content,
                                                const std::string& source);

/// The ids to continue: a text gets the tokenizer's special tokens, a conversation those of its
/// template. `system` becomes the first message of a conversation that has none.
/// @throws FormatError naming the prompt: no tokens, no template, roles that the template refuses
[[nodiscard]] std::vector<std::int32_t> encode_prompt(const Prompt& prompt,
                                                      const text::ChatTokenizer& words,
                                                      const std::string& system = {});

}  // namespace espalier::infer

#ifdef ESP_BODIES
#include <espalier/io/jsonl.hpp>

namespace espalier::infer {

namespace detail {

ESP_INLINE Prompt prompt_of(const io::Json& value) {
  ESP_REQUIRE(value.is_object(), FormatError, value.where(), ": expected an object, found ",
              value.kind_name());
  Prompt p;
  p.where = value.where();
  const io::Json* messages = value.find("messages");
  if (messages == nullptr) {
    const io::Json* text = value.find("prompt");
    ESP_REQUIRE(text != nullptr, FormatError, value.where(),
                ": has neither \"prompt\" nor \"messages\"");
    p.text = text->as_string();
    return p;
  }
  ESP_REQUIRE(value.find("prompt") == nullptr, FormatError, value.where(),
              ": has both \"prompt\" and \"messages\"");
  for (const io::Json& m : messages->items()) {
    p.messages.push_back({m.at("role").as_string(), m.at("content").as_string()});
  }
  ESP_REQUIRE(!p.messages.empty() && p.messages.back().role == "user", FormatError, value.where(),
              ": \"messages\" must end with a message of the role user, to be answered");
  return p;
}

}  // namespace detail

ESP_INLINE std::vector<Prompt> parse_prompts(std::string_view content, const std::string& source) {
  std::vector<Prompt> prompts;
  const std::size_t first = content.find_first_not_of(" \t\r\n");
  if (first != content.npos && content[first] == '{') {
    io::for_each_json_line(content, source, [&](const io::Json& value, std::size_t) {
      prompts.push_back(detail::prompt_of(value));
    });
  } else {
    for (std::size_t line = 1; !content.empty(); ++line) {
      const std::size_t end = std::min(content.find('\n'), content.size());
      std::string_view row = content.substr(0, end);
      content.remove_prefix(std::min(end + 1, content.size()));
      if (row.ends_with('\r')) row.remove_suffix(1);
      if (row.find_first_not_of(" \t") == row.npos) continue;
      prompts.push_back({source + ": line " + std::to_string(line), std::string(row), {}});
    }
  }
  ESP_REQUIRE(!prompts.empty(), FormatError, source, ": has no prompts, expected one a line");
  return prompts;
}

ESP_INLINE std::vector<std::int32_t> encode_prompt(const Prompt& prompt,
                                                   const text::ChatTokenizer& words,
                                                   const std::string& system) {
  if (!prompt.messages.empty()) {
    std::vector<text::Message> messages = prompt.messages;
    if (!system.empty() && messages[0].role != "system") {
      messages.insert(messages.begin(), {"system", system});
    }
    try {
      return words.encode_chat(messages, true);
    } catch (const FormatError& e) {
      throw FormatError(prompt.where.empty() ? e.what() : prompt.where + ": " + e.what());
    }
  }
  const text::Tokenizer& tokenizer = words.tokenizer();
  std::vector<std::int32_t> ids = tokenizer.encode(prompt.text);
  if (ids.empty() && tokenizer.bos_id()) ids.push_back(*tokenizer.bos_id());
  ESP_REQUIRE(!ids.empty(), FormatError, prompt.where, prompt.where.empty() ? "" : ": ",
              "the prompt has no tokens");
  return ids;
}

}  // namespace espalier::infer
#endif
