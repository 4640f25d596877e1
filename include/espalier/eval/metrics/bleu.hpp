// SPDX-License-Identifier: Apache-2.0
// BLEU (Papineni et al. 2002): modified n-gram precision against one or more references, times a
// penalty for what is shorter than the reference of nearest length.
//   corpus_bleu    orders 1 to 4 over a whole test set, 0 to 100, as sacrebleu 2 computes it:
//                  tokens of mteval-v13a, an order without a match counts 1/(2^i * its n-grams)
//   sentence_bleu  one order of one sentence, 0 to 1, over words of NLTK's kind (word_tokens.hpp):
//                  LightEval's bleu_1 and bleu_4
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/bleu.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>

namespace espalier::eval::metrics {

/// A translation and what it may be.
struct Translation {
  std::string hypothesis;
  std::vector<std::string> references;
};

/// @throws UsageError if a sentence has no reference
[[nodiscard]] double corpus_bleu(std::span<const Translation> corpus);
[[nodiscard]] double sentence_bleu(const Translation& sentence, std::size_t order);

/// The text as mteval-v13a splits it, joined by single spaces: symbols stand alone, periods and
/// commas except between digits, a hyphen after a digit.
[[nodiscard]] std::string tokenize_13a(std::string_view text);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>

#include <espalier/eval/metrics/ngrams.hpp>
#include <espalier/eval/metrics/python_text.hpp>
#include <espalier/eval/metrics/word_tokens.hpp>

namespace espalier::eval::metrics {

namespace detail {

/// Symbols that mteval-v13a always separates: ASCII punctuation but ' , - .
inline bool stands_alone_13a(char c) {
  return is_ascii_punctuation(c) && c != '\'' && c != ',' && c != '-' && c != '.';
}

/// Copies `text`; where `splits(first, second)` holds for two neighbours, puts a space before the
/// first (if `before`), between them, and after the second (if `after`). Pairs do not overlap.
template <class Splits>
std::string split_pairs(std::string_view text, bool before, bool after, Splits&& splits) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    if (i + 1 == text.size() || !splits(text[i], text[i + 1])) {
      out += text[i++];
      continue;
    }
    if (before) out += ' ';
    out += text[i];
    out += ' ';
    out += text[i + 1];
    if (after) out += ' ';
    i += 2;
  }
  return out;
}

struct BleuCounts {
  std::array<double, 4> matches{}, totals{};
  double hypothesis_length = 0, reference_length = 0;
};

/// Length of the reference nearest to `length`; of two the shorter.
inline std::size_t nearest_length(const std::vector<std::vector<std::string_view>>& references,
                                  std::size_t length) {
  const auto distance = [&](std::size_t n) { return n > length ? n - length : length - n; };
  std::size_t best = references[0].size();
  for (const auto& r : references) {
    if (distance(r.size()) < distance(best) ||
        (distance(r.size()) == distance(best) && r.size() < best)) {
      best = r.size();
    }
  }
  return best;
}

inline void add_counts(BleuCounts& counts, const std::vector<std::string_view>& hypothesis,
                       const std::vector<std::vector<std::string_view>>& references) {
  counts.hypothesis_length += static_cast<double>(hypothesis.size());
  counts.reference_length += static_cast<double>(nearest_length(references, hypothesis.size()));
  for (std::size_t n = 1; n <= counts.matches.size(); ++n) {
    NgramCounts<std::vector<std::string_view>> most;
    for (const auto& r : references) keep_larger(most, count_ngrams(r, n));
    counts.matches[n - 1] += static_cast<double>(common_ngrams(count_ngrams(hypothesis, n), most));
    counts.totals[n - 1] += static_cast<double>(ngram_total(hypothesis.size(), n));
  }
}

inline double brevity_penalty(const BleuCounts& c) {
  if (c.hypothesis_length >= c.reference_length) return 1;
  return c.hypothesis_length == 0 ? 0 : std::exp(1 - c.reference_length / c.hypothesis_length);
}

inline void require_references(const Translation& sentence, std::size_t number) {
  ESP_REQUIRE(!sentence.references.empty(), UsageError, "translation ", number,
              " has no reference to compare with");
}

}  // namespace detail

ESP_INLINE std::string tokenize_13a(std::string_view text) {
  std::string s = replace_all(replace_all(text, "<skipped>", ""), "-\n", "");
  std::replace(s.begin(), s.end(), '\n', ' ');
  if (s.find('&') != s.npos) {
    for (const auto& [entity, symbol] : {std::pair{"&quot;", "\""}, std::pair{"&amp;", "&"},
                                         std::pair{"&lt;", "<"}, std::pair{"&gt;", ">"}}) {
      s = replace_all(s, entity, symbol);
    }
  }
  std::string spaced = " ";
  for (const char c : s) {
    if (detail::stands_alone_13a(c)) spaced += ' ';
    spaced += c;
    if (detail::stands_alone_13a(c)) spaced += ' ';
  }
  spaced += ' ';
  const auto point = [](char c) { return c == '.' || c == ','; };
  spaced = detail::split_pairs(spaced, false, true,
                               [&](char a, char b) { return !is_ascii_digit(a) && point(b); });
  spaced = detail::split_pairs(spaced, true, false,
                               [&](char a, char b) { return point(a) && !is_ascii_digit(b); });
  spaced = detail::split_pairs(spaced, false, true,
                               [](char a, char b) { return is_ascii_digit(a) && b == '-'; });
  return join(split(spaced), " ");
}

ESP_INLINE double corpus_bleu(std::span<const Translation> corpus) {
  detail::BleuCounts counts;
  for (std::size_t i = 0; i < corpus.size(); ++i) {
    detail::require_references(corpus[i], i);
    const std::string hypothesis = tokenize_13a(valid_text(corpus[i].hypothesis));
    std::vector<std::string> texts;
    for (const std::string& r : corpus[i].references) texts.push_back(tokenize_13a(valid_text(r)));
    std::vector<std::vector<std::string_view>> references;
    for (const std::string& t : texts) references.push_back(split(t));
    detail::add_counts(counts, split(hypothesis), references);
  }
  if (counts.matches[0] == 0) return 0;
  double log_sum = 0, smoothing = 1;
  for (std::size_t n = 0; n < counts.matches.size(); ++n) {
    if (counts.totals[n] == 0) return 0;
    if (counts.matches[n] == 0) smoothing *= 2;
    const double matches = counts.matches[n] > 0 ? counts.matches[n] : 1 / smoothing;
    log_sum += std::log(matches / counts.totals[n]);
  }
  const auto orders = static_cast<double>(counts.matches.size());
  return 100 * detail::brevity_penalty(counts) * std::exp(log_sum / orders);
}

ESP_INLINE double sentence_bleu(const Translation& sentence, std::size_t order) {
  detail::require_references(sentence, 0);
  ESP_REQUIRE(order >= 1 && order <= 4, UsageError, "sentence_bleu: order ", order,
              ", expected 1 to 4");
  const std::vector<std::string> hypothesis = word_tokens(sentence.hypothesis);
  std::vector<std::vector<std::string>> texts;
  for (const std::string& r : sentence.references) texts.push_back(word_tokens(r));
  std::vector<std::vector<std::string_view>> references;
  for (const auto& t : texts) references.emplace_back(t.begin(), t.end());
  detail::BleuCounts counts;
  detail::add_counts(counts, {hypothesis.begin(), hypothesis.end()}, references);
  if (counts.matches[0] == 0) return 0;
  const double total = std::max(1.0, counts.totals[order - 1]);
  return detail::brevity_penalty(counts) * counts.matches[order - 1] / total;
}

}  // namespace espalier::eval::metrics
#endif
