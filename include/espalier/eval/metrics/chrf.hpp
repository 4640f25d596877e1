// SPDX-License-Identifier: Apache-2.0
// chrF and chrF++ (Popovic 2015, 2017) as sacrebleu 2 computes them over a whole test set, 0 to
// 100: F with beta 2 of the precision and recall of character n-grams of orders 1 to 6, without
// white space, and for chrF++ of word n-grams of orders 1 and 2; precision and recall are means
// over the orders that both sides have. Of several references the one with the best score counts.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/chrf.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <span>

#include <espalier/core/inline.hpp>
#include <espalier/eval/metrics/bleu.hpp>

namespace espalier::eval::metrics {

/// @param word_orders 0 for chrF, 2 for chrF++
/// @throws UsageError if a sentence has no reference
[[nodiscard]] double corpus_chrf(std::span<const Translation> corpus, std::size_t word_orders = 0);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <string>
#include <string_view>
#include <vector>

#include <espalier/eval/metrics/ngrams.hpp>
#include <espalier/eval/metrics/python_text.hpp>

namespace espalier::eval::metrics {

namespace detail {

inline constexpr std::size_t kChrfOrders = 6;

struct ChrfCounts {
  double hypothesis = 0, reference = 0, matches = 0;
};

inline double chrf_score(const std::vector<ChrfCounts>& orders) {
  constexpr double kFactor = 4;  // beta squared
  double precision = 0, recall = 0, used = 0;
  for (const ChrfCounts& c : orders) {
    if (c.hypothesis == 0 || c.reference == 0) continue;
    precision += c.matches / c.hypothesis;
    recall += c.matches / c.reference;
    ++used;
  }
  if (precision + recall == 0) return 0;
  precision /= used;
  recall /= used;
  return 100 * (1 + kFactor) * precision * recall / (kFactor * precision + recall);
}

/// The words of a text, with one punctuation mark at the end of a word, else at its begin, apart.
inline std::vector<std::string_view> chrf_words(std::string_view text) {
  std::vector<std::string_view> words;
  for (const std::string_view w : split(text)) {
    if (code_points(w).size() == 1) {
      words.push_back(w);
    } else if (is_ascii_punctuation(w.back())) {
      words.push_back(w.substr(0, w.size() - 1));
      words.push_back(w.substr(w.size() - 1));
    } else if (is_ascii_punctuation(w.front())) {
      words.push_back(w.substr(0, 1));
      words.push_back(w.substr(1));
    } else {
      words.push_back(w);
    }
  }
  return words;
}

/// The n-grams of one text, of all orders.
struct ChrfText {
  ChrfText(const std::string& text, std::size_t word_orders) {
    const std::u32string letters = code_points(join(split(text), ""));
    for (std::size_t n = 1; n <= kChrfOrders; ++n) characters.push_back(count_ngrams(letters, n));
    const std::vector<std::string_view> all = chrf_words(text);
    for (std::size_t n = 1; n <= word_orders; ++n) words.push_back(count_ngrams(all, n));
  }
  std::vector<NgramCounts<std::u32string>> characters;
  std::vector<NgramCounts<std::vector<std::string_view>>> words;  // parts of the text
};

template <class Sequence>
void compare_orders(const std::vector<NgramCounts<Sequence>>& hypothesis,
                    const std::vector<NgramCounts<Sequence>>& reference,
                    std::vector<ChrfCounts>& out) {
  const auto total = [](const NgramCounts<Sequence>& counts) {
    std::size_t sum = 0;
    for (const auto& [ngram, count] : counts) sum += count;
    return static_cast<double>(sum);
  };
  for (std::size_t i = 0; i < hypothesis.size(); ++i) {
    // A text too short for an order leaves that order out, whatever the other text has.
    const double of_reference = total(reference[i]);
    const double of_hypothesis = of_reference > 0 ? total(hypothesis[i]) : 0;
    out.push_back({of_hypothesis, of_reference,
                   static_cast<double>(common_ngrams(hypothesis[i], reference[i]))});
  }
}

}  // namespace detail

ESP_INLINE double corpus_chrf(std::span<const Translation> corpus, std::size_t word_orders) {
  std::vector<detail::ChrfCounts> sum(detail::kChrfOrders + word_orders);
  for (std::size_t i = 0; i < corpus.size(); ++i) {
    detail::require_references(corpus[i], i);
    const std::string text = valid_text(corpus[i].hypothesis);
    const detail::ChrfText hypothesis(text, word_orders);
    std::vector<detail::ChrfCounts> best;
    double best_score = -1;
    for (const std::string& r : corpus[i].references) {
      const std::string reference_text = valid_text(r);
      const detail::ChrfText reference(reference_text, word_orders);
      std::vector<detail::ChrfCounts> counts;
      compare_orders(hypothesis.characters, reference.characters, counts);
      compare_orders(hypothesis.words, reference.words, counts);
      const double score = detail::chrf_score(counts);
      if (score > best_score) {
        best_score = score;
        best = counts;
      }
    }
    for (std::size_t n = 0; n < sum.size(); ++n) {
      sum[n].hypothesis += best[n].hypothesis;
      sum[n].reference += best[n].reference;
      sum[n].matches += best[n].matches;
    }
  }
  return detail::chrf_score(sum);
}

}  // namespace espalier::eval::metrics
#endif
