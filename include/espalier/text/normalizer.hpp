// SPDX-License-Identifier: Apache-2.0
// Normalizers of tokenizer.json: they rewrite the text before it is split. utf8proc provides
// Unicode normal forms and case.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/normalizer.hpp is host-only; include it from a .cpp"
#endif

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <utf8proc.h>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>
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

namespace detail {

/// Sorts each run of combining marks by class, equal classes in their order. (utf8proc_map swaps
/// neighbours instead, which is quadratic in the length of a run.)
inline void order_marks(std::vector<utf8proc_int32_t>& text) {
  const auto class_of = [](utf8proc_int32_t c) {
    return static_cast<std::uint8_t>(utf8proc_get_property(c)->combining_class);
  };
  struct Mark {
    std::uint8_t order;
    utf8proc_int32_t code;
  };
  std::vector<Mark> run;
  const auto write_back = [&](std::size_t end) {
    std::array<std::size_t, 257> begin{};  // of the marks of each class
    for (const Mark& m : run) ++begin[m.order + 1u];
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    for (const Mark& m : run) text[end - run.size() + begin[m.order]++] = m.code;
  };
  for (std::size_t i = 0; i < text.size();) {
    run.clear();
    bool ordered = true;
    for (; i < text.size(); ++i) {
      const std::uint8_t order = class_of(text[i]);
      if (order == 0) break;
      ordered = ordered && (run.empty() || run.back().order <= order);
      run.push_back({order, text[i]});
    }
    if (!ordered) write_back(i);
    ++i;
  }
}

}  // namespace detail

/// NFC, NFD, NFKC or NFKD: decomposes, orders the marks, composes. Linear in the text.
struct UnicodeNormalizer {
  bool compose = true;
  bool compatibility = false;
  ESP_INLINE std::string apply(std::string_view s) const {
    const auto options = static_cast<utf8proc_option_t>(
        UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
        (compatibility ? UTF8PROC_COMPAT : 0));
    std::vector<utf8proc_int32_t> text;
    text.reserve(s.size());
    for (std::size_t pos = 0; pos < s.size();) {
      const CodePoint c = decode_utf8(s, pos);
      pos += static_cast<std::size_t>(c.size);
      std::array<utf8proc_int32_t, 32> parts;  // the longest, U+FDFA, has 18
      int boundary = UTF8PROC_BOUNDCLASS_START;
      const utf8proc_ssize_t n = utf8proc_decompose_char(
          static_cast<utf8proc_int32_t>(c.value), parts.data(), parts.size(), options, &boundary);
      require(n >= 0 && n <= static_cast<utf8proc_ssize_t>(parts.size()), n);
      text.insert(text.end(), parts.begin(), parts.begin() + n);
    }
    detail::order_marks(text);
    const utf8proc_ssize_t size =
        utf8proc_normalize_utf32(text.data(), static_cast<utf8proc_ssize_t>(text.size()), options);
    require(size >= 0, size);
    std::string out;
    out.reserve(s.size());
    for (utf8proc_ssize_t i = 0; i < size; ++i) {
      append_utf8(out, static_cast<char32_t>(text[static_cast<std::size_t>(i)]));
    }
    return out;
  }

 private:
  static void require(bool ok, utf8proc_ssize_t code) {
    ESP_REQUIRE(ok, Error, "encode: Unicode normalization fails: ", utf8proc_errmsg(code));
  }
};

using Normalizer = std::variant<PrependNormalizer, ReplaceNormalizer, LowercaseNormalizer,
                                StripNormalizer, UnicodeNormalizer>;

}  // namespace espalier::text
