// SPDX-License-Identifier: Apache-2.0
// Added tokens: texts that are matched in the input before the model, leftmost first, longest at
// each place. Decoding can leave out `special` ones. Search costs one table look-up per byte that
// no token begins with, and one hash look-up per distinct token length elsewhere.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/added_tokens.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <espalier/text/regex.hpp>
#include <espalier/text/unicode.hpp>
#include <espalier/text/vocabulary.hpp>

namespace espalier::text {

struct AddedToken {
  std::string content;
  std::int32_t id = -1;
  bool special = false;
  bool single_word = false;  // only if no word character is adjacent
  bool lstrip = false;       // also matches white space on its left
  bool rstrip = false;
  bool normalized = false;  // matched in the normalized text, and decoded normalized
  std::string shown = {};   // its text in decoding; set by TokenizerDefinition::finish
};

/// A part of the input: a token if id >= 0, otherwise text for the model.
struct Segment {
  Span span;
  std::int32_t id = -1;
};

class AddedTokenFinder {
 public:
  /// A text that was added before keeps its first id.
  void add(std::string_view text, const AddedToken& token) {
    if (text.empty()) return;
    std::vector<std::size_t>& lengths = lengths_[static_cast<std::uint8_t>(text[0])];
    const auto at = std::lower_bound(lengths.begin(), lengths.end(), text.size(), std::greater<>());
    if (at == lengths.end() || *at != text.size()) lengths.insert(at, text.size());
    tokens_.emplace(text, token);
  }
  bool empty() const { return tokens_.empty(); }

  /// Splits valid UTF-8 into tokens and the text between them, without empty parts.
  std::vector<Segment> split(std::string_view text) const {
    std::vector<Segment> out;
    std::size_t done = 0;
    Span blanks;  // the white space that an `rstrip` token took last: it is not walked again
    for (std::size_t pos = 0; pos < text.size();) {
      const auto* match = match_at(text, pos);
      if (match == nullptr) {
        ++pos;
        continue;
      }
      std::size_t begin = pos, end = pos + match->first.size();
      const AddedToken& token = match->second;
      pos = end;
      if (token.single_word && (word_before(text, begin) || word_at(text, end))) continue;
      if (token.lstrip && done < begin) begin = white_space_before(text, begin, done);
      if (token.rstrip) {
        const bool known = blanks.begin <= end && end <= blanks.end;
        if (!known) blanks = {end, white_space_after(text, end)};
        end = blanks.end;
      }
      begin = std::max(begin, done);
      if (done < begin) out.push_back({{done, begin}, -1});
      out.push_back({{begin, end}, token.id});
      done = end;
    }
    if (done < text.size()) out.push_back({{done, text.size()}, -1});
    return out;
  }

 private:
  using Tokens = std::unordered_map<std::string, AddedToken, StringHash, std::equal_to<>>;

  const Tokens::value_type* match_at(std::string_view text, std::size_t pos) const {
    for (const std::size_t length : lengths_[static_cast<std::uint8_t>(text[pos])]) {
      if (length > text.size() - pos) continue;
      if (const auto it = tokens_.find(text.substr(pos, length)); it != tokens_.end()) return &*it;
    }
    return nullptr;
  }

  static std::size_t previous(std::string_view text, std::size_t pos) {
    do --pos;
    while (pos > 0 && (static_cast<std::uint8_t>(text[pos]) & 0xC0) == 0x80);
    return pos;
  }
  static bool word_before(std::string_view text, std::size_t pos) {
    return pos > 0 && is_identifier_char(decode_utf8(text, previous(text, pos)).value);
  }
  static bool word_at(std::string_view text, std::size_t pos) {
    return pos < text.size() && is_identifier_char(decode_utf8(text, pos).value);
  }
  /// Down to `first`.
  static std::size_t white_space_before(std::string_view text, std::size_t pos, std::size_t first) {
    while (pos > first) {
      const std::size_t at = previous(text, pos);
      if (!is_white_space(decode_utf8(text, at).value)) break;
      pos = at;
    }
    return pos;
  }
  static std::size_t white_space_after(std::string_view text, std::size_t pos) {
    while (pos < text.size()) {
      const CodePoint c = decode_utf8(text, pos);
      if (!is_white_space(c.value)) break;
      pos += c.size;
    }
    return pos;
  }

  Tokens tokens_;
  std::array<std::vector<std::size_t>, 256> lengths_;
};

}  // namespace espalier::text
