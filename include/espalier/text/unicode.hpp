// SPDX-License-Identifier: Apache-2.0
// UTF-8 and the character classes of tokenizers and answer extraction. Strict UTF-8: no
// overlong forms, no surrogates, nothing above U+10FFFF. Classes come from utf8proc's Unicode
// tables; white space exists twice, because Unicode and Python disagree about U+001C..U+001F.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/unicode.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <utf8proc.h>

namespace espalier::text {

/// A code point and the bytes it took; `size` 0 says that no valid code point starts here.
struct CodePoint {
  char32_t value = 0;
  int size = 0;
};

namespace detail {

struct Utf8Lead {
  int size;
  std::uint8_t low, high;  // allowed range of the second byte
};

inline Utf8Lead utf8_lead(std::uint8_t b) {
  if (b < 0x80) return {1, 0, 0};
  if (b < 0xC2) return {0, 0, 0};
  if (b < 0xE0) return {2, 0x80, 0xBF};
  if (b == 0xE0) return {3, 0xA0, 0xBF};
  if (b == 0xED) return {3, 0x80, 0x9F};
  if (b < 0xF0) return {3, 0x80, 0xBF};
  if (b == 0xF0) return {4, 0x90, 0xBF};
  if (b < 0xF4) return {4, 0x80, 0xBF};
  if (b == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace detail

/// Bytes at `pos` that form a code point or the longest beginning of one; at least 1.
inline int utf8_prefix(std::string_view s, std::size_t pos, bool& whole) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(s[i]); };
  const detail::Utf8Lead lead = detail::utf8_lead(byte(pos));
  whole = lead.size == 1;
  if (lead.size < 2) return 1;
  int n = 1;
  while (n < lead.size && pos + n < s.size()) {
    const std::uint8_t b = byte(pos + n);
    const bool ok = n == 1 ? b >= lead.low && b <= lead.high : (b & 0xC0) == 0x80;
    if (!ok) return n;
    ++n;
  }
  whole = n == lead.size;
  return n;
}

/// The code point that starts at byte `pos` of `s` (`pos` < size).
inline CodePoint decode_utf8(std::string_view s, std::size_t pos) {
  const auto byte = [&](std::size_t i) { return static_cast<std::uint8_t>(s[i]); };
  const std::uint8_t first = byte(pos);
  if (first < 0x80) return {first, 1};
  bool whole = false;
  const int n = utf8_prefix(s, pos, whole);
  if (!whole) return {0, 0};
  char32_t cp = first & (0x7F >> n);
  for (int i = 1; i < n; ++i) cp = (cp << 6) | (byte(pos + i) & 0x3F);
  return {cp, n};
}

inline void append_utf8(std::string& out, char32_t cp) {
  const auto put = [&](std::uint32_t b) { out.push_back(static_cast<char>(b)); };
  if (cp < 0x80) {
    put(cp);
  } else if (cp < 0x800) {
    put(0xC0 | (cp >> 6));
    put(0x80 | (cp & 0x3F));
  } else if (cp < 0x10000) {
    put(0xE0 | (cp >> 12));
    put(0x80 | ((cp >> 6) & 0x3F));
    put(0x80 | (cp & 0x3F));
  } else {
    put(0xF0 | (cp >> 18));
    put(0x80 | ((cp >> 12) & 0x3F));
    put(0x80 | ((cp >> 6) & 0x3F));
    put(0x80 | (cp & 0x3F));
  }
}

/// Offset of the first byte that is not part of valid UTF-8, or npos.
inline std::size_t find_invalid_utf8(std::string_view s) {
  for (std::size_t pos = 0; pos < s.size();) {
    const CodePoint c = decode_utf8(s, pos);
    if (c.size == 0) return pos;
    pos += c.size;
  }
  return std::string_view::npos;
}

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

/// `s` with every ill-formed stretch replaced by one U+FFFD (maximal subparts, as Unicode advises).
inline std::string replace_invalid_utf8(std::string_view s) {
  std::string out;
  out.reserve(s.size());
  for (std::size_t pos = 0; pos < s.size();) {
    bool whole = false;
    const int n = utf8_prefix(s, pos, whole);
    out += whole ? s.substr(pos, n) : kReplacement;
    pos += n;
  }
  return out;
}

/// General category L*.
inline bool is_letter(char32_t c) {
  if (c < 0x80) return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  const utf8proc_category_t k = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO;
}

/// General category N*: decimal digits, letter numbers, other numbers.
inline bool is_number(char32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  const utf8proc_category_t k = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return k >= UTF8PROC_CATEGORY_ND && k <= UTF8PROC_CATEGORY_NO;
}

/// Unicode's White_Space: `\s` of tokenizer patterns.
inline bool is_white_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 0x09 && c <= 0x0D);
  if (c < 0x1680) return c == 0x85 || c == 0xA0;
  return c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

/// Python's `\s` and str.isspace(): White_Space and the four separators U+001C..U+001F.
inline bool is_space(char32_t c) {
  return (c >= 0x1C && c <= 0x1F) || is_white_space(c);
}

/// Python's `\w`: letters, everything with a numeric value, underscore; marks are not word
/// characters.
inline bool is_word_char(char32_t c) {
  return c == '_' || is_letter(c) || is_number(c);
}

/// `\w` of Unicode's regex annex: also marks, connectors and joiners. Decides `single_word` of
/// added tokens.
inline bool is_identifier_char(char32_t c) {
  if (c < 0x80) return is_word_char(c);
  if (is_letter(c) || c == 0x200C || c == 0x200D) return true;
  switch (utf8proc_category(static_cast<utf8proc_int32_t>(c))) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:  // the circled and squared letters are symbols, yet alphabetic
      return (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
             (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
  }
}

/// Lower case of one code point, appended; U+0130 is the only one that becomes two.
inline void append_lower(std::string& out, char32_t c) {
  if (c == 0x130) {
    out += "i\xCC\x87";
    return;
  }
  append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
}

}  // namespace espalier::text
