// SPDX-License-Identifier: Apache-2.0
// Porter's stemmer (1980) with the departures of NLTK, which rouge_score uses: a short list of
// irregular words, "ies" and "ied" of four letters become "ie", "y" becomes "i" only after a
// consonant that does not begin the word, and step 2 also has "fulli" and "logi", takes "bli" for
// "abli", and reads "alli" as "al" once more. Words are lower-case ASCII.
#pragma once

#include <string>
#include <string_view>

#include <espalier/core/inline.hpp>

namespace espalier::eval::metrics {

[[nodiscard]] std::string porter_stem(std::string_view word);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>
#include <cstddef>
#include <iterator>
#include <span>

namespace espalier::eval::metrics {

namespace detail {

/// Is the letter after a consonant (or a vowel) a consonant? "y" is one at the begin and after a
/// vowel.
inline bool is_consonant_after(char c, bool first, bool after_consonant) {
  if (c == 'a' || c == 'e' || c == 'i' || c == 'o' || c == 'u') return false;
  return c != 'y' || first || !after_consonant;
}
inline bool is_consonant(std::string_view word, std::size_t i) {
  bool consonant = false;
  for (std::size_t k = 0; k <= i; ++k) {
    consonant = is_consonant_after(word[k], k == 0, consonant);
  }
  return consonant;
}

inline bool has_vowel(std::string_view stem) {
  bool consonant = true;
  for (std::size_t i = 0; i < stem.size() && consonant; ++i) {
    consonant = is_consonant_after(stem[i], i == 0, consonant);
  }
  return !consonant;
}

/// Porter's m: how often a vowel is followed by a consonant.
inline int measure(std::string_view stem) {
  int m = 0;
  bool consonant = true;
  for (std::size_t i = 0; i < stem.size(); ++i) {
    const bool before = consonant;
    consonant = is_consonant_after(stem[i], i == 0, before);
    if (consonant && !before) ++m;
  }
  return m;
}

inline bool ends_double_consonant(std::string_view word) {
  const std::size_t n = word.size();
  return n >= 2 && word[n - 1] == word[n - 2] && is_consonant(word, n - 1);
}

/// Porter's *o: consonant, vowel, consonant other than w, x, y; NLTK: also a whole word of vowel
/// and consonant.
inline bool ends_cvc(std::string_view word) {
  const std::size_t n = word.size();
  if (n == 2) return !is_consonant(word, 0) && is_consonant(word, 1);
  return n >= 3 && is_consonant(word, n - 3) && !is_consonant(word, n - 2) &&
         is_consonant(word, n - 1) && word[n - 1] != 'w' && word[n - 1] != 'x' &&
         word[n - 1] != 'y';
}

struct SuffixRule {
  std::string_view suffix, replacement;
};

/// Applies the first rule whose suffix the word has, if what is left has a measure above `above`.
inline void apply_suffix_rules(std::string& word, std::span<const SuffixRule> rules, int above) {
  for (const SuffixRule& r : rules) {
    if (!word.ends_with(r.suffix)) continue;
    const std::string_view stem = std::string_view(word).substr(0, word.size() - r.suffix.size());
    if (measure(stem) > above) word = std::string(stem) + std::string(r.replacement);
    return;
  }
}

inline void porter_step_1a(std::string& w) {
  if (w.ends_with("ies") && w.size() == 4) {
    w.pop_back();
  } else if (w.ends_with("sses") || w.ends_with("ies")) {
    w.resize(w.size() - 2);
  } else if (w.ends_with("s") && !w.ends_with("ss")) {
    w.pop_back();
  }
}

inline void porter_step_1b(std::string& w) {
  if (w.ends_with("ied")) {
    w.resize(w.size() - (w.size() == 4 ? 1 : 2));
    return;
  }
  if (w.ends_with("eed")) {
    if (measure(std::string_view(w).substr(0, w.size() - 3)) > 0) w.pop_back();
    return;
  }
  const std::size_t n = w.ends_with("ed") ? 2 : w.ends_with("ing") ? 3 : 0;
  if (n == 0 || !has_vowel(std::string_view(w).substr(0, w.size() - n))) return;
  w.resize(w.size() - n);
  if (w.ends_with("at") || w.ends_with("bl") || w.ends_with("iz")) {
    w += 'e';
  } else if (ends_double_consonant(w)) {
    if (w.back() != 'l' && w.back() != 's' && w.back() != 'z') w.pop_back();
  } else if (measure(w) == 1 && ends_cvc(w)) {
    w += 'e';
  }
}

inline void porter_step_1c(std::string& w) {
  if (w.ends_with("y") && w.size() > 2 && is_consonant(w, w.size() - 2)) w.back() = 'i';
}

inline void porter_step_2(std::string& w) {
  if (w.ends_with("alli") && measure(std::string_view(w).substr(0, w.size() - 4)) > 0) {
    w.resize(w.size() - 2);
    return porter_step_2(w);
  }
  if (w.ends_with("logi")) {  // the measure of what stands before "ogi"
    if (measure(std::string_view(w).substr(0, w.size() - 3)) > 0) w.pop_back();
    return;
  }
  static constexpr SuffixRule kRules[] = {
      {"ational", "ate"}, {"tional", "tion"}, {"enci", "ence"},   {"anci", "ance"},
      {"izer", "ize"},    {"bli", "ble"},     {"alli", "al"},     {"entli", "ent"},
      {"eli", "e"},       {"ousli", "ous"},   {"ization", "ize"}, {"ation", "ate"},
      {"ator", "ate"},    {"alism", "al"},    {"iveness", "ive"}, {"fulness", "ful"},
      {"ousness", "ous"}, {"aliti", "al"},    {"iviti", "ive"},   {"biliti", "ble"},
      {"fulli", "ful"}};
  apply_suffix_rules(w, kRules, 0);
}

inline void porter_step_3(std::string& w) {
  static constexpr SuffixRule kRules[] = {{"icate", "ic"}, {"ative", ""},  {"alize", "al"},
                                          {"iciti", "ic"}, {"ical", "ic"}, {"ful", ""},
                                          {"ness", ""}};
  apply_suffix_rules(w, kRules, 0);
}

inline void porter_step_4(std::string& w) {
  if (w.ends_with("ion")) {
    const std::string_view stem = std::string_view(w).substr(0, w.size() - 3);
    if ((stem.ends_with('s') || stem.ends_with('t')) && measure(stem) > 1) w = std::string(stem);
    return;
  }
  static constexpr SuffixRule kRules[] = {
      {"al", ""},   {"ance", ""}, {"ence", ""},  {"er", ""},   {"ic", ""},  {"able", ""},
      {"ible", ""}, {"ant", ""},  {"ement", ""}, {"ment", ""}, {"ent", ""}, {"ou", ""},
      {"ism", ""},  {"ate", ""},  {"iti", ""},   {"ous", ""},  {"ive", ""}, {"ize", ""}};
  apply_suffix_rules(w, kRules, 1);
}

inline void porter_step_5(std::string& w) {
  if (w.ends_with('e')) {
    const std::string_view stem = std::string_view(w).substr(0, w.size() - 1);
    const int m = measure(stem);
    if (m > 1 || (m == 1 && !ends_cvc(stem))) w.pop_back();
  }
  if (w.ends_with("ll") && measure(std::string_view(w).substr(0, w.size() - 1)) > 1) w.pop_back();
}

}  // namespace detail

ESP_INLINE std::string porter_stem(std::string_view word) {
  static constexpr detail::SuffixRule kIrregular[] = {
      {"sky", "sky"},        {"skies", "sky"},        {"dying", "die"},
      {"lying", "lie"},      {"tying", "tie"},        {"news", "news"},
      {"innings", "inning"}, {"inning", "inning"},    {"outings", "outing"},
      {"outing", "outing"},  {"cannings", "canning"}, {"canning", "canning"},
      {"howe", "howe"},      {"proceed", "proceed"},  {"exceed", "exceed"},
      {"succeed", "succeed"}};
  for (const detail::SuffixRule& irregular : kIrregular) {
    if (word == irregular.suffix) return std::string(irregular.replacement);
  }
  std::string w(word);
  if (w.size() <= 2) return w;
  detail::porter_step_1a(w);
  detail::porter_step_1b(w);
  detail::porter_step_1c(w);
  detail::porter_step_2(w);
  detail::porter_step_3(w);
  detail::porter_step_4(w);
  detail::porter_step_5(w);
  return w;
}

}  // namespace espalier::eval::metrics
#endif
