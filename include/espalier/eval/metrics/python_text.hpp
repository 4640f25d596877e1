// SPDX-License-Identifier: Apache-2.0
// Methods of Python's `str` on UTF-8, as the reference implementations of metrics use them. White
// space and case are Unicode's; case is mapped code point by code point, so that "ß" has no upper
// case and a final sigma is no special letter. Text that is not valid UTF-8 is made so once, by
// `valid_text`.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/python_text.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/inline.hpp>
#include <espalier/text/unicode.hpp>

namespace espalier::eval::metrics {

/// Python's string.punctuation: the 32 ASCII characters that are neither letters nor digits.
[[nodiscard]] inline bool is_ascii_punctuation(char c) {
  return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
         (c >= '{' && c <= '~');
}
[[nodiscard]] inline bool is_ascii_digit(char c) {
  return c >= '0' && c <= '9';
}
[[nodiscard]] inline bool is_ascii_letter(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/// `text` itself where it is valid UTF-8, else with U+FFFD for each ill-formed stretch.
[[nodiscard]] std::string valid_text(std::string_view text);

/// str.strip(): without white space at both ends. The result is a part of `text`.
[[nodiscard]] std::string_view strip(std::string_view text);
/// str.strip(characters), ASCII characters only.
[[nodiscard]] std::string_view strip(std::string_view text, std::string_view characters);
[[nodiscard]] std::string lower(std::string_view text);
[[nodiscard]] std::string upper(std::string_view text);

/// str.split(): the words between white space; parts of `text`, none of them empty.
[[nodiscard]] std::vector<std::string_view> split(std::string_view text);
/// str.split(separator): at each occurrence; one more part than occurrences, perhaps empty ones.
[[nodiscard]] std::vector<std::string_view> split(std::string_view text,
                                                  std::string_view separator);
/// separator.join(parts)
[[nodiscard]] std::string join(const std::vector<std::string_view>& parts,
                               std::string_view separator);
/// str.replace(from, to): all occurrences from the left, none within a replacement.
[[nodiscard]] std::string replace_all(std::string_view text, std::string_view from,
                                      std::string_view to);
/// The code points of valid UTF-8.
[[nodiscard]] std::u32string code_points(std::string_view text);

/// Without the code points for which `drop` is true. `text` is valid UTF-8.
template <class Drop>
[[nodiscard]] std::string without(std::string_view text, Drop&& drop) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const text::CodePoint c = text::decode_utf8(text, at);
    const auto size = static_cast<std::size_t>(c.size > 0 ? c.size : 1);
    if (!drop(c.value)) out += text.substr(at, size);
    at += size;
  }
  return out;
}

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
namespace espalier::eval::metrics {

namespace detail {

/// Byte offset of the code point that ends right before `at`.
inline std::size_t code_point_before(std::string_view text, std::size_t at) {
  std::size_t begin = at - 1;
  while (begin > 0 && at - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) {
    --begin;
  }
  return begin;
}

}  // namespace detail

ESP_INLINE std::string valid_text(std::string_view text) {
  return text::find_invalid_utf8(text) == text.npos ? std::string(text)
                                                    : text::replace_invalid_utf8(text);
}

ESP_INLINE std::string_view strip(std::string_view text) {
  std::size_t begin = 0, end = text.size();
  while (begin < end) {
    const text::CodePoint c = text::decode_utf8(text, begin);
    if (c.size == 0 || !text::is_space(c.value)) break;
    begin += static_cast<std::size_t>(c.size);
  }
  while (end > begin) {
    const std::size_t at = detail::code_point_before(text, end);
    const text::CodePoint c = text::decode_utf8(text, at);
    if (at + static_cast<std::size_t>(c.size) != end || !text::is_space(c.value)) break;
    end = at;
  }
  return text.substr(begin, end - begin);
}

ESP_INLINE std::string_view strip(std::string_view text, std::string_view characters) {
  const std::size_t begin = text.find_first_not_of(characters);
  if (begin == text.npos) return {};
  return text.substr(begin, text.find_last_not_of(characters) + 1 - begin);
}

ESP_INLINE std::string lower(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const text::CodePoint c = text::decode_utf8(text, at);
    if (c.size == 0) {
      out += text[at++];
      continue;
    }
    text::append_lower(out, c.value);
    at += static_cast<std::size_t>(c.size);
  }
  return out;
}

ESP_INLINE std::string upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const text::CodePoint c = text::decode_utf8(text, at);
    if (c.size == 0) {
      out += text[at++];
      continue;
    }
    text::append_utf8(
        out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c.value))));
    at += static_cast<std::size_t>(c.size);
  }
  return out;
}

ESP_INLINE std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> words;
  std::size_t word = text.npos;  // where the current word begins
  for (std::size_t at = 0; at < text.size();) {
    const text::CodePoint c = text::decode_utf8(text, at);
    if (c.size > 0 && text::is_space(c.value)) {
      if (word != text.npos) words.push_back(text.substr(word, at - word));
      word = text.npos;
    } else if (word == text.npos) {
      word = at;
    }
    at += static_cast<std::size_t>(c.size > 0 ? c.size : 1);
  }
  if (word != text.npos) words.push_back(text.substr(word));
  return words;
}

ESP_INLINE std::vector<std::string_view> split(std::string_view text, std::string_view separator) {
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  for (std::size_t at; (at = text.find(separator, begin)) != text.npos;) {
    parts.push_back(text.substr(begin, at - begin));
    begin = at + separator.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

ESP_INLINE std::string join(const std::vector<std::string_view>& parts,
                            std::string_view separator) {
  std::string out;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (i > 0) out += separator;
    out += parts[i];
  }
  return out;
}

ESP_INLINE std::string replace_all(std::string_view text, std::string_view from,
                                   std::string_view to) {
  return join(split(text, from), to);
}

ESP_INLINE std::u32string code_points(std::string_view text) {
  std::u32string out;
  for (std::size_t at = 0; at < text.size();) {
    const text::CodePoint c = text::decode_utf8(text, at);
    out += c.value;
    at += static_cast<std::size_t>(c.size > 0 ? c.size : 1);
  }
  return out;
}

}  // namespace espalier::eval::metrics
#endif
