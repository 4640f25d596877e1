// SPDX-License-Identifier: Apache-2.0
// Patterns of tokenizer.json. They use Oniguruma's syntax, so `^` and `$` match at lines.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/regex.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/io/regex.hpp>
#include <espalier/text/regex_syntax.hpp>
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
  /// @throws FormatError if the pattern does not compile or has something that is not supported
  Regex(std::string_view pattern, std::string_view where)
      : Regex(pattern, espalier::detail::concat({where, ": pattern '", pattern, "'"}), 0) {}

  /// All matches in `text` (valid UTF-8), left to right. An empty match directly after another
  /// match is skipped.
  /// @throws FormatError if the pattern needs too many steps for this text
  ESP_INLINE std::vector<Span> find_all(std::string_view text) const {
    io::RegexSearch search(regex_, text);
    std::vector<Span> matches;
    std::size_t pos = 0, last_end = std::string_view::npos;
    while (pos <= text.size() && search.find(pos)) {
      const Span m{search.begin(), search.end()};
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
  Regex(std::string_view pattern, std::string where, int)
      : regex_(translate_oniguruma(pattern, where), io::RegexKind::unicode_lines, where) {}

  io::Regex regex_;
};

}  // namespace espalier::text
