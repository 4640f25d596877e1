// SPDX-License-Identifier: Apache-2.0
// Normalizers of tokenizer.json: they rewrite the text before it is split. utf8proc provides
// Unicode normal forms and case.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/normalizer.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <variant>

#include <utf8proc.h>

#include <espalier/core/error.hpp>
#include <espalier/text/pre_tokenizer.hpp>
#include <espalier/text/unicode.hpp>

namespace espalier::text {

struct PrependNormalizer {
  std::string prepend;
  std::string apply(std::string_view s) const { return s.empty() ? "" : prepend + std::string(s); }
};

struct ReplaceNormalizer {
  Pattern pattern;
  std::string content;
  std::string apply(std::string_view s) const { return pattern.replace_all(s, content); }
};

struct LowercaseNormalizer {
  std::string apply(std::string_view s) const {
    std::string out;
    out.reserve(s.size());
    for (std::size_t pos = 0; pos < s.size();) {
      const CodePoint c = decode_utf8(s, pos);
      append_lower(out, c.value);
      pos += c.size;
    }
    return out;
  }
};

/// Strips white space from one or both ends.
struct StripNormalizer {
  bool left = true, right = true;
  std::string apply(std::string_view s) const {
    std::size_t begin = 0, end = s.size();
    while (left && begin < s.size()) {
      const CodePoint c = decode_utf8(s, begin);
      if (!is_white_space(c.value)) break;
      begin += c.size;
    }
    while (right && end > begin) {
      std::size_t at = end - 1;
      while (at > begin && (static_cast<unsigned char>(s[at]) & 0xC0) == 0x80) --at;
      if (!is_white_space(decode_utf8(s, at).value)) break;
      end = at;
    }
    return std::string(s.substr(begin, end - begin));
  }
};

/// NFC, NFD, NFKC or NFKD.
struct UnicodeNormalizer {
  bool compose = true;
  bool compatibility = false;
  std::string apply(std::string_view s) const {
    const int options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
                        (compatibility ? UTF8PROC_COMPAT : 0);
    utf8proc_uint8_t* raw = nullptr;
    const utf8proc_ssize_t n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(s.data()),
                                            static_cast<utf8proc_ssize_t>(s.size()), &raw,
                                            static_cast<utf8proc_option_t>(options));
    const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(raw, std::free);
    ESP_REQUIRE(n >= 0, Error, "encode: Unicode normalization fails: ", utf8proc_errmsg(n));
    return {reinterpret_cast<const char*>(raw), static_cast<std::size_t>(n)};
  }
};

using Normalizer = std::variant<PrependNormalizer, ReplaceNormalizer, LowercaseNormalizer,
                                StripNormalizer, UnicodeNormalizer>;

}  // namespace espalier::text
