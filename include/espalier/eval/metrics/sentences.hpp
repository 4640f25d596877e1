// SPDX-License-Identifier: Apache-2.0
// Sentences of English text by rule. A sentence ends at one or more of . ! ? with the quotes and
// brackets after them, where white space and then no lower-case letter follows, and at an empty
// line. A period ends none after an initial ("J. Doe"), after an abbreviation of the list below,
// and in "e.g." or "U.S." unless a capital letter follows; NLTK's trained splitter (Punkt) knows
// more abbreviations, so that its counts differ now and then by one.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/sentences.hpp is host-only; include it from a .cpp"
#endif

#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/inline.hpp>

namespace espalier::eval::metrics {

/// The sentences without white space at their ends; none is empty.
[[nodiscard]] std::vector<std::string> split_sentences(std::string_view text);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>

#include <espalier/eval/metrics/python_text.hpp>

namespace espalier::eval::metrics {

namespace detail {

/// The letters right before byte `at`, with periods among them.
inline std::string_view word_up_to(std::string_view text, std::size_t at) {
  std::size_t begin = at;
  while (begin > 0 && (is_ascii_letter(text[begin - 1]) || text[begin - 1] == '.')) --begin;
  return text.substr(begin, at - begin);
}

/// Is the period at `at` part of an abbreviation, so that the sentence goes on?
inline bool abbreviates(std::string_view text, std::size_t at, bool capital_follows) {
  static constexpr std::string_view kTitles[] = {
      "mr",  "mrs", "ms",   "dr",  "prof", "st",  "sr",     "jr",   "rev",
      "gen", "col", "capt", "lt",  "sen",  "rep", "gov",    "vs",   "fig",
      "no",  "vol", "inc",  "ltd", "corp", "co",  "approx", "dept", "est"};
  const std::string_view word = word_up_to(text, at);
  if (word.size() == 1) return word[0] >= 'A' && word[0] <= 'Z' && word[0] != 'I';
  if (word.find('.') != word.npos) return !capital_follows;
  const std::string small = lower(word);
  return std::find(std::begin(kTitles), std::end(kTitles), small) != std::end(kTitles);
}

}  // namespace detail

ESP_INLINE std::vector<std::string> split_sentences(std::string_view text) {
  const std::string valid = valid_text(text);
  const std::string_view s = valid;
  std::vector<std::string> sentences;
  std::size_t begin = 0;
  const auto end_at = [&](std::size_t end) {
    if (const std::string_view one = strip(s.substr(begin, end - begin)); !one.empty()) {
      sentences.emplace_back(one);
    }
    begin = end;
  };
  for (std::size_t at = 0; at < s.size(); ++at) {
    if (s[at] == '\n') {
      const std::size_t next = s.find_first_not_of(" \t\r", at + 1);
      if (next != s.npos && s[next] == '\n') end_at(at);
      continue;
    }
    if (s[at] != '.' && s[at] != '!' && s[at] != '?') continue;
    std::size_t end = s.find_first_not_of(".!?", at);
    const bool plain_period = s[at] == '.' && end == at + 1;
    if (end != s.npos) end = s.find_first_not_of("\"')]}", end);
    if (end == s.npos) break;  // the text ends here
    const std::size_t next = s.find_first_not_of(" \t\r\n", end);
    const bool space = next != end;
    const bool small = next != s.npos && s[next] >= 'a' && s[next] <= 'z';
    const bool capital = next != s.npos && s[next] >= 'A' && s[next] <= 'Z';
    if (space && !small && !(plain_period && detail::abbreviates(s, at, capital))) end_at(end);
    at = end - 1;
  }
  end_at(s.size());
  return sentences;
}

}  // namespace espalier::eval::metrics
#endif
