// SPDX-License-Identifier: Apache-2.0
// Extracts the letter of an MMLU-Pro answer as the reference script does: it tries three patterns
// of Python's `re` in turn, and the first that matches wins. The patterns are written by hand, one
// pass over the text each; Python's third one is quadratic. White space and word characters are
// Unicode's.
//   1  answer is \(?([A-J])\)?            the first occurrence
//   2  .*[aA]nswer:\s*([A-J])             the first line with a hit, its last hit
//   3  \b[A-J]\b(?!.*\b[A-J]\b), dotall   the last letter A-J that stands alone
// evaluate_from_apiX.py takes the last match of each, of pattern 2 without ".*".
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/answer.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <string_view>

#include <espalier/text/unicode.hpp>

namespace espalier::eval {

struct Answer {
  char letter = 0;  // 'A' to 'J', 0: none found
  int level = 0;    // 1 to 3, 0: none found

  explicit operator bool() const { return letter != 0; }
};

namespace detail {

inline bool is_answer_letter(std::string_view text, std::size_t at) {
  return at < text.size() && text[at] >= 'A' && text[at] <= 'J';
}

/// True if a word character ends right before byte `at`.
inline bool word_before(std::string_view text, std::size_t at) {
  if (at == 0) return false;
  std::size_t begin = at - 1;
  while (begin > 0 && at - begin < 4 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) {
    --begin;
  }
  const text::CodePoint c = text::decode_utf8(text, begin);
  return c.size > 0 && begin + static_cast<std::size_t>(c.size) == at &&
         text::is_word_char(c.value);
}

inline bool word_at(std::string_view text, std::size_t at) {
  if (at >= text.size()) return false;
  const text::CodePoint c = text::decode_utf8(text, at);
  return c.size > 0 && text::is_word_char(c.value);
}

inline std::size_t skip_space(std::string_view text, std::size_t at) {
  while (at < text.size()) {
    const text::CodePoint c = text::decode_utf8(text, at);
    if (c.size == 0 || !text::is_space(c.value)) break;
    at += static_cast<std::size_t>(c.size);
  }
  return at;
}

inline char level_1(std::string_view text, bool last) {
  constexpr std::string_view kLead = "answer is ";
  char found = 0;
  for (std::size_t at = text.find(kLead); at != text.npos; at = text.find(kLead, at + 1)) {
    std::size_t letter = at + kLead.size();
    if (letter < text.size() && text[letter] == '(') ++letter;
    if (!is_answer_letter(text, letter)) continue;
    found = text[letter];
    if (!last) break;
  }
  return found;
}

inline char level_2(std::string_view text, bool last) {
  constexpr std::string_view kLead = "nswer:";
  char found = 0;
  std::size_t line_end = 0;  // of the line with a hit
  for (std::size_t at = text.find(kLead); at != text.npos; at = text.find(kLead, at + 1)) {
    if (at == 0 || (text[at - 1] != 'a' && text[at - 1] != 'A')) continue;
    if (!last && found != 0 && at > line_end) break;
    const std::size_t letter = skip_space(text, at + kLead.size());
    if (!is_answer_letter(text, letter)) continue;
    found = text[letter];
    line_end = std::min(text.find('\n', at), text.size());
  }
  return found;
}

inline char level_3(std::string_view text, bool) {
  for (std::size_t at = text.size(); at-- > 0;) {
    if (is_answer_letter(text, at) && !word_before(text, at) && !word_at(text, at + 1)) {
      return text[at];
    }
  }
  return 0;
}

}  // namespace detail

/// Tries the first `levels` patterns. @param last the last match of each, as apiX takes it
[[nodiscard]] inline Answer extract_answer(std::string_view text, int levels = 3,
                                           bool last = false) {
  using Level = char (*)(std::string_view, bool);
  constexpr Level kLevels[] = {detail::level_1, detail::level_2, detail::level_3};
  for (int level = 1; level <= std::min(levels, 3); ++level) {
    if (const char letter = kLevels[level - 1](text, last)) return {letter, level};
  }
  return {};
}

}  // namespace espalier::eval
