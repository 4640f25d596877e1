// SPDX-License-Identifier: Apache-2.0
// WikiText's pages as they were written, by the rule of lm-evaluation-harness' task wikitext 2.0:
// the data set has blanks around punctuation and " @-@ " for a hyphen within a word.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/wikitext.hpp is host-only; include it from a .cpp"
#endif

#include <string>

#include <espalier/core/inline.hpp>

namespace espalier::eval {

[[nodiscard]] std::string detokenize_wikitext(const std::string& page);

/// Words as the task counts them: the pieces between runs of white space, also an empty one at an
/// end.
[[nodiscard]] std::size_t count_words(const std::string& text);

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <utility>

#include <espalier/eval/metrics/python_regex.hpp>

namespace espalier::eval {

namespace detail {

/// As Python's str.replace.
inline std::string with_all_replaced(const std::string& text, const std::string& from,
                                     const std::string& to) {
  std::string out;
  std::size_t at = 0;
  for (std::size_t next = 0; (next = text.find(from, at)) != text.npos; at = next + from.size()) {
    out.append(text, at, next - at);
    out += to;
  }
  return out.append(text, at);
}

/// Without white space on the inner sides of a pair of brackets or quotes: each match of `pattern`
/// becomes its group between `open` and `close`.
inline std::string with_tight_pairs(const std::string& text, const char* pattern, char open,
                                    char close) {
  const metrics::PythonRegex pair(pattern, "wikitext");
  std::string out;
  std::size_t at = 0;
  for (const auto& m : pair.find_all(text)) {
    out.append(text, at, m.begin - at);
    (out += open) += m.groups.at(0);
    out += close;
    at = m.end;
  }
  return out.append(text, at);
}

}  // namespace detail

ESP_INLINE std::string detokenize_wikitext(const std::string& page) {
  using Pair = std::pair<const char*, const char*>;
  const auto replace = [](std::string s, std::initializer_list<Pair> pairs) {
    for (const auto& [from, to] : pairs) s = detail::with_all_replaced(s, from, to);
    return s;
  };
  std::string s = replace(page, {{"s '", "s'"},
                                 {" @-@ ", "-"},
                                 {" @,@ ", ","},
                                 {" @.@ ", "."},
                                 {" : ", ": "},
                                 {" ; ", "; "},
                                 {" . ", ". "},
                                 {" ! ", "! "},
                                 {" ? ", "? "},
                                 {" , ", ", "}});
  s = detail::with_tight_pairs(s, R"(\(\s*([^\)]*?)\s*\))", '(', ')');
  s = detail::with_tight_pairs(s, R"(\[\s*([^\]]*?)\s*\])", '[', ']');
  s = detail::with_tight_pairs(s, R"(\{\s*([^}]*?)\s*\})", '{', '}');
  s = detail::with_tight_pairs(s, R"("\s*([^"]*?)\s*")", '"', '"');
  s = detail::with_tight_pairs(s, R"('\s*([^']*?)\s*')", '\'', '\'');
  return replace(std::move(s), {{"= = = =", "===="},
                                {"= = =", "==="},
                                {"= =", "=="},
                                {" \xc2\xb0 ", "\xc2\xb0"},
                                {" \n", "\n"},
                                {"\n ", "\n"},
                                {" N ", " 1 "},
                                {" 's", "'s"}});
}

ESP_INLINE std::size_t count_words(const std::string& text) {
  return metrics::PythonRegex(R"(\s+)", "words").find_all(text).size() + 1;
}

}  // namespace espalier::eval
#endif
