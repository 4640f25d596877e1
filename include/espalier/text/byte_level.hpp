// SPDX-License-Identifier: Apache-2.0
// The byte-level BPE of GPT-2: the split into words, and the table that maps each of the 256 bytes
// to a printable character, so that no text has unknown characters. Split: 's|'t|'re|'ve|'m|'ll|'d|
// ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ Matched by hand-written code: the results of a
// regex engine at several times its speed.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/byte_level.hpp is host-only; include it from a .cpp"
#endif

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <espalier/text/unicode.hpp>

namespace espalier::text {

/// The byte <-> character table: printable Latin-1 stands for itself, the rest from U+0100 on.
class ByteAlphabet {
 public:
  ByteAlphabet() {
    bytes_.fill(-1);
    char32_t next = 0x100;
    for (int b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const char32_t c = printable ? static_cast<char32_t>(b) : next++;
      bytes_[c] = static_cast<std::int16_t>(b);
      append_utf8(spelling_[b], c);
    }
  }

  static const ByteAlphabet& instance() {
    static const ByteAlphabet alphabet;
    return alphabet;
  }

  void append_spelling(std::string& out, std::string_view bytes) const {
    for (const char b : bytes) out += spelling_[static_cast<std::uint8_t>(b)];
  }

  /// Appends the bytes that `token` encodes; a token with any other character is copied unchanged.
  void append_bytes(std::string& out, std::string_view token) const {
    const std::size_t start = out.size();
    for (std::size_t pos = 0; pos < token.size();) {
      const CodePoint c = decode_utf8(token, pos);
      const int b = c.size > 0 && c.value < bytes_.size() ? bytes_[c.value] : -1;
      if (b < 0) {
        out.resize(start);
        out += token;
        return;
      }
      out.push_back(static_cast<char>(b));
      pos += c.size;
    }
  }

 private:
  std::array<std::int16_t, 0x144> bytes_{};
  std::array<std::string, 256> spelling_;
};

namespace detail {

enum class WordClass : std::uint8_t { space, letter, number, other };

inline WordClass word_class(char32_t c) {
  static const std::array<WordClass, 128> ascii = [] {
    std::array<WordClass, 128> table{};
    for (char32_t a = 0; a < 128; ++a) {
      table[a] = is_white_space(a) ? WordClass::space
                 : is_letter(a)    ? WordClass::letter
                 : is_number(a)    ? WordClass::number
                                   : WordClass::other;
    }
    return table;
  }();
  if (c < 128) return ascii[c];
  if (is_white_space(c)) return WordClass::space;
  if (is_letter(c)) return WordClass::letter;
  return is_number(c) ? WordClass::number : WordClass::other;
}

inline std::size_t contraction_length(std::string_view s) {
  if (s.size() < 2 || s[0] != '\'') return 0;
  if (s[1] == 's' || s[1] == 't' || s[1] == 'm' || s[1] == 'd') return 2;
  const std::string_view two = s.substr(1, 2);
  return two == "re" || two == "ve" || two == "ll" ? 3 : 0;
}

}  // namespace detail

/// End of the GPT-2 word that starts at byte `pos` of valid UTF-8; every byte belongs to a word.
inline std::size_t gpt2_word_end(std::string_view text, std::size_t pos) {
  using detail::WordClass;
  if (const std::size_t n = detail::contraction_length(text.substr(pos)); n > 0) return pos + n;
  CodePoint c = decode_utf8(text, pos);
  WordClass kind = detail::word_class(c.value);
  std::size_t end = pos + c.size;
  if (text[pos] == ' ' && end < text.size()) {  // one space joins the word behind it
    c = decode_utf8(text, end);
    kind = detail::word_class(c.value);
    if (kind != WordClass::space) end += c.size;
  }
  std::size_t last = pos;
  while (end < text.size()) {
    c = decode_utf8(text, end);
    if (detail::word_class(c.value) != kind) break;
    last = end;
    end += c.size;
  }
  // White space before a word leaves its last character to that word, unless it is the only one.
  if (kind == WordClass::space && end < text.size() && last > pos) return last;
  return end;
}

}  // namespace espalier::text
