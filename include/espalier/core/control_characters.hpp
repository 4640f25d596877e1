// SPDX-License-Identifier: Apache-2.0
// Names and texts from files, made safe to print: a terminal obeys control characters (it can be
// told to clear the screen, to set its title, to answer as if the user typed).
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <espalier/core/inline.hpp>

namespace espalier {

/// Bytes of the UTF-8 character that starts at `text[at]`; 0 where none does (overlong forms,
/// surrogates and values above U+10FFFF are none).
[[nodiscard]] ESP_INLINE std::size_t utf8_length(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const unsigned char first = byte(0);
  const std::size_t n = first < 0x80    ? 1
                        : first >= 0xf5 ? 0
                        : first >= 0xf0 ? 4
                        : first >= 0xe0 ? 3
                        : first >= 0xc2 ? 2
                                        : 0;
  if (n < 2) return n;
  if (at + n > text.size()) return 0;
  for (std::size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  const bool outside = (first == 0xe0 && second < 0xa0) || (first == 0xed && second > 0x9f) ||
                       (first == 0xf0 && second < 0x90) || (first == 0xf4 && second > 0x8f);
  return outside ? 0 : n;
}

/// `text` with every control character (C0, DEL, C1) and every byte that is not UTF-8 written as
/// \x1b. Characters of `keep` stay as they are.
[[nodiscard]] ESP_INLINE std::string escape_controls(std::string_view text,
                                                     std::string_view keep = {}) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  const auto escape = [&](unsigned char c) {
    out += "\\x";
    out += kHex[c >> 4];
    out += kHex[c & 15];
  };
  for (std::size_t at = 0; at < text.size();) {
    const auto first = static_cast<unsigned char>(text[at]);
    const std::size_t n = utf8_length(text, at);
    const bool c0 = n == 1 && (first < 0x20 || first == 0x7f) && keep.find(text[at]) == keep.npos;
    const bool c1 = n == 2 && first == 0xc2 && static_cast<unsigned char>(text[at + 1]) < 0xa0;
    if (n == 0 || c0) {
      escape(first);
    } else if (c1) {
      escape(static_cast<unsigned char>(text[at + 1]));
    } else {
      out += text.substr(at, n);
    }
    at += n == 0 ? 1 : n;
  }
  return out;
}

}  // namespace espalier
