// SPDX-License-Identifier: Apache-2.0
// Is a generated text the expected one, and how many words do both share? Definitions are those of
// LightEval (ExactMatches, F1_score), HELM's normalizer, and SQuAD (token_f1). Of several golds and
// predictions the best pair counts.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/text_match.hpp is host-only; include it from a .cpp"
#endif

#include <span>
#include <string>
#include <string_view>

#include <espalier/core/inline.hpp>

namespace espalier::eval::metrics {

enum class TextNormalizer {
  none,
  helm,      // per word between spaces and hyphens: lower case, without ASCII punctuation, numbers
             // as Python prints them, without a, an, the
  triviaqa,  // lower case, without ASCII punctuation
  bigbench,  // " . " is the end of a line
};
[[nodiscard]] std::string normalize_text(std::string_view text, TextNormalizer normalizer);

enum class MatchKind { full, prefix, suffix };  // the gold is all, begin, or end of the prediction

struct MatchOptions {
  MatchKind kind = MatchKind::full;
  TextNormalizer normalizer = TextNormalizer::none;
  bool strip = true;  // both texts first
};
/// 1 or 0. An empty prediction matches nothing. LightEval's em has the default options; its quasi
/// matches (qem, pqem) normalize with `helm`.
[[nodiscard]] double text_match(std::string_view gold, std::string_view prediction,
                                const MatchOptions& options = {});
/// F of the sets of words between white space; 0 where a side has none.
[[nodiscard]] double word_set_f1(std::string_view gold, std::string_view prediction);
/// F of the bags of words after SQuAD's normalization (lower case, without ASCII punctuation and
/// articles); 1 where both sides have none.
[[nodiscard]] double token_f1(std::string_view gold, std::string_view prediction);

/// The largest score(gold, prediction) over all pairs; 0 where there is none.
template <class Score>
[[nodiscard]] double best_pair(std::span<const std::string> golds,
                               std::span<const std::string> predictions, Score&& score) {
  double best = 0;
  for (const std::string& gold : golds) {
    for (const std::string& prediction : predictions) {
      const double s = score(gold, prediction);
      if (s > best) best = s;
    }
  }
  return best;
}

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <map>
#include <set>
#include <vector>

#include <espalier/eval/metrics/python_number.hpp>
#include <espalier/eval/metrics/python_regex.hpp>
#include <espalier/eval/metrics/python_text.hpp>
#include <espalier/eval/metrics/rouge.hpp>

namespace espalier::eval::metrics {

namespace detail {

/// The pieces of a text between spaces and hyphens.
inline std::vector<std::string_view> split_at_spaces_and_hyphens(std::string_view text) {
  std::vector<std::string_view> pieces;
  for (const std::string_view part : split(text, " ")) {
    for (const std::string_view piece : split(part, "-")) pieces.push_back(piece);
  }
  return pieces;
}

inline std::string without_articles(std::string_view text) {
  static const PythonRegex articles(R"(\b(a|an|the)\b)", "articles");
  return join(split(articles.substitute(text, " ")), " ");
}

inline std::string without_punctuation(std::string text) {
  std::erase_if(text, is_ascii_punctuation);
  return text;
}

/// @param keep_numbers numbers keep their signs and points, as DROP has it
inline std::string normalized_words(std::string_view text, bool keep_numbers) {
  std::string out;
  for (const std::string_view piece : split_at_spaces_and_hyphens(text)) {
    std::string word = lower(piece);
    if (!keep_numbers || !python_float(word)) word = without_punctuation(word);
    if (const std::optional<double> number = python_float(word)) word = python_repr(*number);
    word = without_articles(word);
    if (word.empty()) continue;
    if (!out.empty()) out += ' ';
    out += word;
  }
  return out;
}

}  // namespace detail

ESP_INLINE std::string normalize_text(std::string_view text, TextNormalizer normalizer) {
  const std::string valid = valid_text(text);
  switch (normalizer) {
    case TextNormalizer::helm:
      return detail::normalized_words(valid, false);
    case TextNormalizer::triviaqa:
      return detail::without_punctuation(lower(valid));
    case TextNormalizer::bigbench:
      return replace_all(valid, " . ", ".\n");
    case TextNormalizer::none:
      break;
  }
  return valid;
}

ESP_INLINE double text_match(std::string_view gold, std::string_view prediction,
                             const MatchOptions& options) {
  if (prediction.empty()) return 0;
  const std::string g = normalize_text(options.strip ? strip(gold) : gold, options.normalizer);
  const std::string p =
      normalize_text(options.strip ? strip(prediction) : prediction, options.normalizer);
  if (options.kind == MatchKind::prefix) return p.starts_with(g);
  if (options.kind == MatchKind::suffix) return p.ends_with(g);
  return p == g;
}

ESP_INLINE double word_set_f1(std::string_view gold, std::string_view prediction) {
  const std::string g = valid_text(gold), p = valid_text(prediction);
  const std::vector<std::string_view> gold_words = split(g), predicted_words = split(p);
  const std::set<std::string_view> a(gold_words.begin(), gold_words.end());
  const std::set<std::string_view> b(predicted_words.begin(), predicted_words.end());
  std::size_t common = 0;
  for (const std::string_view w : a) common += b.count(w);
  return OverlapScore::of(static_cast<double>(common), static_cast<double>(b.size()),
                          static_cast<double>(a.size()))
      .f;
}

ESP_INLINE double token_f1(std::string_view gold, std::string_view prediction) {
  const auto plain = [](std::string_view text) {
    return detail::without_articles(detail::without_punctuation(lower(valid_text(text))));
  };
  const std::string g = plain(gold), p = plain(prediction);
  const std::vector<std::string_view> a = split(g), b = split(p);
  if (a.empty() && b.empty()) return 1;
  std::map<std::string_view, std::size_t> left;
  for (const std::string_view w : a) ++left[w];
  double common = 0;
  for (const std::string_view w : b) {
    if (left[w] == 0) continue;
    --left[w];
    ++common;
  }
  return OverlapScore::of(common, static_cast<double>(b.size()), static_cast<double>(a.size())).f;
}

}  // namespace espalier::eval::metrics
#endif
