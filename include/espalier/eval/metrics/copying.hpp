// SPDX-License-Identifier: Apache-2.0
// How much of a text is copied from another, over words of the Penn Treebank's kind
// (word_tokens.hpp). `string_distance` is LightEval's copyright metric. `extractiveness` is that of
// Newsroom (Grusky et al. 2018); LightEval takes spaCy's words for it, which differ where spaCy
// splits at a hyphen or a slash.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/copying.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/inline.hpp>

namespace espalier::eval::metrics {

struct StringDistance {
  double longest_common_prefix_length = 0;  // words
  double edit_distance = 0;                 // insertions, deletions, substitutions of words
  double edit_similarity = 0;               // 1 - distance / the longer length; 0 of an empty text
};
/// The prediction, without white space at its ends, against as many code points of the reference.
[[nodiscard]] StringDistance string_distance(std::string_view reference,
                                             std::string_view prediction);

struct Extractiveness {
  double coverage = 0;     // words of the summary in copied fragments, by its words
  double density = 0;      // sum of the squares of the fragments' lengths, by its words
  double compression = 0;  // words of the text by words of the summary
};
/// Fragments are found from the left: at each word of the summary the longest run of words that the
/// text has, in lower case. A brace at either end of both texts does not count.
[[nodiscard]] Extractiveness extractiveness(std::string_view text, std::string_view summary);

/// Levenshtein's distance between two sequences.
[[nodiscard]] std::size_t edit_distance(const std::vector<std::string>& a,
                                        const std::vector<std::string>& b);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>
#include <numeric>
#include <unordered_map>

#include <espalier/eval/metrics/python_text.hpp>
#include <espalier/eval/metrics/word_tokens.hpp>

namespace espalier::eval::metrics {

ESP_INLINE std::size_t edit_distance(const std::vector<std::string>& a,
                                     const std::vector<std::string>& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t across = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t substituted = across + (a[i - 1] == b[j - 1] ? 0 : 1);
      across = row[j];
      row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

ESP_INLINE StringDistance string_distance(std::string_view reference, std::string_view prediction) {
  const std::string valid = valid_text(prediction);
  const std::string_view completion = strip(valid);
  const std::string whole = valid_text(reference);
  std::size_t end = 0;  // of as many code points
  for (std::size_t left = code_points(completion).size(); left > 0 && end < whole.size(); --left) {
    end += static_cast<std::size_t>(std::max(1, text::decode_utf8(whole, end).size));
  }
  const std::vector<std::string> a = treebank_tokens(completion);
  const std::vector<std::string> b = treebank_tokens(std::string_view(whole).substr(0, end));
  StringDistance d;
  const std::size_t shorter = std::min(a.size(), b.size());
  const auto differ =
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(shorter), b.begin());
  d.longest_common_prefix_length = static_cast<double>(differ.first - a.begin());
  d.edit_distance = static_cast<double>(edit_distance(a, b));
  if (shorter > 0) {
    d.edit_similarity = 1 - d.edit_distance / static_cast<double>(std::max(a.size(), b.size()));
  }
  return d;
}

namespace detail {

inline std::vector<std::string> copied_words(std::string_view text) {
  std::string_view s = strip(text);
  if (s.starts_with('{')) s.remove_prefix(1);
  if (s.ends_with('}')) s.remove_suffix(1);
  std::vector<std::string> words = word_tokens(s);
  for (std::string& w : words) w = lower(w);
  return words;
}

}  // namespace detail

ESP_INLINE Extractiveness extractiveness(std::string_view text, std::string_view summary) {
  const std::vector<std::string> source = detail::copied_words(valid_text(text));
  const std::vector<std::string> words = detail::copied_words(valid_text(summary));
  Extractiveness e;
  if (words.empty()) return e;
  std::unordered_map<std::string_view, std::vector<std::size_t>> places;
  for (std::size_t i = 0; i < source.size(); ++i) places[source[i]].push_back(i);
  for (std::size_t at = 0; at < words.size();) {
    std::size_t longest = 0, free = 0;  // where the next comparison may begin
    for (const std::size_t place : places[words[at]]) {
      if (place < free) continue;
      std::size_t n = 1;
      while (at + n < words.size() && place + n < source.size() &&
             words[at + n] == source[place + n]) {
        ++n;
      }
      longest = std::max(longest, n);
      free = place + n;
    }
    e.coverage += static_cast<double>(longest);
    e.density += static_cast<double>(longest * longest);
    at += std::max<std::size_t>(1, longest);
  }
  const auto n = static_cast<double>(words.size());
  return {e.coverage / n, e.density / n, static_cast<double>(source.size()) / n};
}

}  // namespace espalier::eval::metrics
#endif
