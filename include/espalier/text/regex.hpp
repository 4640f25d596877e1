// SPDX-License-Identifier: Apache-2.0
// Patterns of tokenizer.json in PCRE2 (UTF, Unicode properties, JIT where possible). They use
// Oniguruma's Ruby syntax, so `^` and `$` match at lines, and `\s` is expanded to Unicode's
// White_Space, because PCRE2's own `\s` also has U+180E.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/regex.hpp is host-only; include it from a .cpp"
#endif

#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <pcre2.h>

#include <espalier/core/error.hpp>
#include <espalier/text/unicode.hpp>

namespace espalier::text {

/// Half-open byte range of a text.
struct Span {
  std::size_t begin = 0, end = 0;
  friend bool operator==(const Span&, const Span&) = default;
};

class Regex {
 public:
  /// @param where file and component, for the message.
  /// @throws FormatError if PCRE2 does not accept the pattern.
  Regex(std::string_view pattern, std::string_view where) : pattern_(pattern) {
    const std::string translated = spell_out_white_space(pattern);
    const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
        pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
    ESP_REQUIRE(context, Error, where, ": out of memory in PCRE2");
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context.get(), 200);
    int code = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                              &code, &at, context.get()),
                pcre2_code_free);
    ESP_REQUIRE(code_, FormatError, where, ": pattern '", pattern,
                "' does not compile: ", message_of(code), " (at byte ", at, ")");
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // on failure the matcher interprets
  }

  /// All matches in `text` (valid UTF-8), left to right. An empty match directly after another
  /// match is skipped.
  std::vector<Span> find_all(std::string_view text) const {
    const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> data(
        pcre2_match_data_create_from_pattern(code_.get(), nullptr), pcre2_match_data_free);
    ESP_REQUIRE(data, Error, "encode: out of memory in PCRE2");
    std::vector<Span> matches;
    std::size_t pos = 0, last_end = std::string_view::npos;
    while (pos <= text.size()) {
      const int rc = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                 text.size(), pos, PCRE2_NO_UTF_CHECK, data.get(), nullptr);
      if (rc == PCRE2_ERROR_NOMATCH) break;
      ESP_REQUIRE(rc > 0, Error, "encode: pattern '", pattern_, "' fails: ", message_of(rc),
                  "; split the text into shorter ones");
      const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data.get());
      const Span m{offsets[0], offsets[1]};
      if (m.begin < m.end) {
        matches.push_back(m);
        pos = last_end = m.end;
        continue;
      }
      if (m.begin != last_end) matches.push_back(m);
      if (m.end >= text.size()) break;
      pos = m.end + decode_utf8(text, m.end).size;
    }
    return matches;
  }

 private:
  static std::string message_of(int code) {
    PCRE2_UCHAR buffer[160] = {};
    pcre2_get_error_message(code, buffer, sizeof(buffer));
    return reinterpret_cast<const char*>(buffer);
  }

  static std::string spell_out_white_space(std::string_view pattern) {
    constexpr std::string_view kSpaces =
        R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
    std::string out;
    int class_depth = 0;
    for (std::size_t i = 0; i < pattern.size(); ++i) {
      const char c = pattern[i];
      if (c == '\\' && i + 1 < pattern.size()) {
        const char kind = pattern[++i];
        if (kind == 's' && class_depth > 0) {
          out += kSpaces;
        } else if (kind == 's' || (kind == 'S' && class_depth == 0)) {
          out.append(kind == 's' ? "[" : "[^").append(kSpaces).append("]");
        } else {
          out.append({c, kind});
        }
        continue;
      }
      if (c == '[') class_depth = 1;
      if (c == ']') class_depth = 0;
      out.push_back(c);
    }
    return out;
  }

  std::string pattern_;
  std::shared_ptr<pcre2_code> code_;
};

}  // namespace espalier::text
