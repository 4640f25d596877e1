// SPDX-License-Identifier: Apache-2.0
// The tokenizer.json of a tokenizer without merges: one token per byte, under the names that the
// byte-level scheme of GPT-2 gives to bytes (Radford et al. 2019). For models of toy languages.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/byte_tokenizer.hpp is host-only; include it from a .cpp"
#endif

#include <string>

#include <espalier/core/inline.hpp>
#include <espalier/io/json.hpp>

namespace espalier::text {

/// Token 0 is `end`, a special token; token b + 1 is the byte b.
[[nodiscard]] io::Json byte_tokenizer_json(const std::string& end);

/// Vocabulary of byte_tokenizer_json: 256 bytes and the special token.
inline constexpr std::int64_t kByteVocabulary = 257;

}  // namespace espalier::text

#ifdef ESP_BODIES
namespace espalier::text {

namespace detail {

/// UTF-8 of a code point below 0x800.
inline std::string two_byte_utf8(unsigned code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
}

inline io::Json byte_vocabulary(const std::string& end) {
  io::Json vocab = io::Json::object();
  vocab[end] = 0;
  unsigned shifted = 256;  // where GPT-2 puts bytes that do not print
  for (unsigned b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    vocab[two_byte_utf8(printable ? b : shifted++)] = b + 1;
  }
  return vocab;
}

inline io::Json byte_level_part() {
  io::Json part = io::Json::object();
  part["type"] = "ByteLevel";
  part["add_prefix_space"] = false;
  part["trim_offsets"] = true;
  part["use_regex"] = false;
  return part;
}

}  // namespace detail

ESP_INLINE io::Json byte_tokenizer_json(const std::string& end) {
  io::Json special = io::Json::object();
  special["id"] = 0;
  special["content"] = end;
  for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized"}) special[flag] = false;
  special["special"] = true;
  io::Json model = io::Json::object();
  model["type"] = "BPE";
  for (const char* key :
       {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    model[key] = nullptr;
  }
  for (const char* key : {"fuse_unk", "byte_fallback", "ignore_merges"}) model[key] = false;
  model["vocab"] = detail::byte_vocabulary(end);
  model["merges"] = io::Json::array();
  io::Json t = io::Json::object();
  t["version"] = "1.0";
  for (const char* key : {"truncation", "padding", "normalizer", "post_processor"}) {
    t[key] = nullptr;
  }
  t["added_tokens"].push_back(std::move(special));
  t["pre_tokenizer"] = detail::byte_level_part();
  t["decoder"] = detail::byte_level_part();
  t["model"] = std::move(model);
  return t;
}

}  // namespace espalier::text
#endif
