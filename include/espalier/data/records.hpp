// SPDX-License-Identifier: Apache-2.0
// Reads and tokenizes the lines of a data file, for training, held-out loss and calibration. A line
// is one of
//   {"messages": [{"role": ..., "content": ...}, ...]}   a conversation
//   {"prompt": ..., "response": ...}                     a question and its answer
//   {"text": ...}                                        a text
// `messages` need a chat template. `prompt`/`response` become a user and an assistant turn if there
// is a template, otherwise the two texts concatenated, then the end-of-text token.
#pragma once

#ifdef __CUDACC__
#error "espalier/data/records.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <string>
#include <vector>

#include <espalier/data/examples.hpp>
#include <espalier/io/jsonl.hpp>
#include <espalier/models/decoder_config.hpp>
#include <espalier/text/chat_tokenizer.hpp>

namespace espalier::data {

struct Record {
  enum class Kind { text, pair, messages };
  Kind kind = Kind::text;
  std::string where;                 // "data.jsonl: line 17", for messages
  std::vector<text::Message> turns;  // a text: one, without a role
};

/// Tokenizer, chat template and end token, to encode records.
struct RecordEncoder {
  text::Encode encode;
  text::RenderChat render;      // empty: there is no chat template
  std::int32_t eos = -1;        // -1: the model has none
  std::string why_no_template;  // where there is none

  /// Tokens and their training mask: the assistant's turns, the response, or the whole text.
  [[nodiscard]] ESP_INLINE Example encode_record(const Record& r) const {
    if (r.kind == Record::Kind::text) return example_of_text(encode, r.turns[0].content, eos);
    if (!render) {
      return example_of_segments(encode, {{r.turns[0].content, false}, {r.turns[1].content, true}},
                                 true, eos);
    }
    try {
      return example_of_segments(encode, render(r.turns), false, -1);
    } catch (const Error& e) {
      throw FormatError(r.where + ": " + e.what());
    }
  }
};

[[nodiscard]] inline RecordEncoder record_encoder(const text::ChatTokenizer& words,
                                                  const DecoderConfig& c) {
  return {words.encoder(c.vocab_size), words.renderer(),
          c.eos_token_ids.empty() ? -1 : c.eos_token_ids.front(), words.why_none()};
}

namespace detail {

inline std::string keys_of(const io::Json& value) {
  std::string list;
  for (const io::Json::Member& m : value.members()) {
    list += (list.empty() ? "; its keys are \"" : ", \"") + m.key + "\"";
    if (list.size() > 120) return list + ", ...";
  }
  return list;
}

ESP_INLINE Record parse_record(const io::Json& value) {
  ESP_REQUIRE(value.is_object(), FormatError, value.where(), ": expected an object, found ",
              value.kind_name());
  Record r;
  r.where = value.where();
  if (const io::Json* messages = value.find("messages")) {
    r.kind = Record::Kind::messages;
    for (const io::Json& m : messages->items()) {
      r.turns.push_back({m.at("role").as_string(), m.at("content").as_string()});
    }
  } else if (value.find("prompt") || value.find("response")) {
    r.kind = Record::Kind::pair;
    r.turns = {{"user", value.at("prompt").as_string()},
               {"assistant", value.at("response").as_string()}};
  } else {
    const io::Json* text = value.find("text");
    ESP_REQUIRE(text != nullptr, FormatError, value.where(),
                ": has none of \"messages\", \"prompt\" and \"response\", \"text\"",
                keys_of(value));
    r.turns = {{"", text->as_string()}};
  }
  return r;
}

}  // namespace detail

/// Parses `content`, the text of the file `path`.
/// @throws FormatError "data.jsonl: line 17: ...", also for messages without a template
[[nodiscard]] ESP_INLINE std::vector<Record> parse_records(std::string_view content,
                                                           const std::filesystem::path& path,
                                                           const RecordEncoder& encoder) {
  std::vector<Record> records;
  io::for_each_json_line(content, path.string(), [&](const io::Json& value, std::size_t) {
    records.push_back(detail::parse_record(value));
    ESP_REQUIRE(encoder.render || records.back().kind != Record::Kind::messages, FormatError,
                value.where(), ": has \"messages\", but there is no chat template to render them (",
                encoder.why_no_template, "); use prompt/response or text");
  });
  return records;
}

}  // namespace espalier::data
