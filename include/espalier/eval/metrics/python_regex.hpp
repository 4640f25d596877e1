// SPDX-License-Identifier: Apache-2.0
// Python's `re` on text: findall, search and sub, with bounded work (io/regex.hpp). Two things that
// Python reads differently are left as PCRE2 has them: `\s` does not contain U+001C to U+001F, and
// `{,n}` is no quantifier. `\Z` is Python's: the very end.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/python_regex.hpp is host-only; include it from a .cpp"
#endif

#include <concepts>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/inline.hpp>
#include <espalier/eval/metrics/python_text.hpp>
#include <espalier/io/regex.hpp>

namespace espalier::eval::metrics {

class PythonRegex {
 public:
  struct Match {
    std::size_t begin = 0, end = 0;        // bytes
    std::vector<std::string_view> groups;  // empty where a group took no part

    std::string_view text(std::string_view whole) const { return whole.substr(begin, end - begin); }
  };

  /// @param where names the pattern in messages: "gsm8k.json: filters"
  /// @throws FormatError if the pattern does not compile
  PythonRegex(std::string_view pattern, std::string_view where);

  /// re.search: the first match. `text` of this and of the others is valid UTF-8 (`valid_text`),
  /// and must outlive the result.
  /// @throws FormatError if the pattern needs too much work for the text
  [[nodiscard]] std::optional<Match> search(std::string_view text) const;
  /// re.finditer: all matches from the left; after a match that is not empty an empty one may
  /// follow at its end.
  [[nodiscard]] std::vector<Match> find_all(std::string_view text) const;
  /// re.sub with a plain text for each match.
  [[nodiscard]] std::string substitute(std::string_view text, std::string_view replacement) const;
  /// re.sub with replacement(match) for each match.
  template <class Replacement>
  requires std::invocable<Replacement, const Match&>
  [[nodiscard]] std::string substitute(std::string_view text, Replacement&& replacement) const {
    std::string out;
    std::size_t done = 0;
    for (const Match& m : find_all(text)) {
      out += text.substr(done, m.begin - done);
      out += replacement(m);
      done = m.end;
    }
    out += text.substr(done);
    return out;
  }

 private:
  io::Regex regex_;
};

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
namespace espalier::eval::metrics {

namespace detail {

/// `\Z` as PCRE2 spells it, which takes a final line break to be the end too.
inline std::string with_python_end(std::string_view pattern) {
  std::string out(pattern);
  for (std::size_t i = 0; i + 1 < out.size(); ++i) {
    if (out[i] != '\\') continue;
    if (out[i + 1] == 'Z') out[i + 1] = 'z';
    ++i;
  }
  return out;
}

}  // namespace detail

ESP_INLINE PythonRegex::PythonRegex(std::string_view pattern, std::string_view where)
    : regex_(detail::with_python_end(pattern), io::RegexKind::python,
             espalier::detail::concat({where, ": pattern '", pattern, "'"})) {}

ESP_INLINE std::optional<PythonRegex::Match> PythonRegex::search(std::string_view text) const {
  io::RegexSearch search(regex_, text);
  if (!search.find(0)) return std::nullopt;
  return Match{search.begin(), search.end(), search.groups()};
}

ESP_INLINE std::vector<PythonRegex::Match> PythonRegex::find_all(std::string_view text) const {
  io::RegexSearch search(regex_, text);
  std::vector<Match> matches;
  bool empty_there = true;
  for (std::size_t at = 0; at <= text.size() && search.find(at, empty_there);) {
    matches.push_back({search.begin(), search.end(), search.groups()});
    at = search.end();
    empty_there = search.begin() < search.end();
  }
  return matches;
}

ESP_INLINE std::string PythonRegex::substitute(std::string_view text,
                                               std::string_view replacement) const {
  return substitute(text, [&](const Match&) { return replacement; });
}

}  // namespace espalier::eval::metrics
#endif
