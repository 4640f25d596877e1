// SPDX-License-Identifier: Apache-2.0
// ROUGE (Lin 2004) as Google's rouge_score computes it. Words are runs of a-z and 0-9 of the
// lower-case text, stemmed (porter_stemmer.hpp) if asked: words of more than three letters. F is of
// ROUGE-N: common n-grams; of ROUGE-L: the longest common subsequence; of ROUGE-Lsum: for each
// sentence of the reference (a line) the union of its longest common subsequences with all lines of
// the prediction, where no word counts more often than either text has it.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/rouge.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/inline.hpp>

namespace espalier::eval::metrics {

/// Precision, recall and their harmonic mean; all 0 where nothing is common.
struct OverlapScore {
  double precision = 0, recall = 0, f = 0;

  static OverlapScore of(double common, double predicted, double reference) {
    if (common == 0 || predicted == 0 || reference == 0) return {};
    const double p = common / predicted, r = common / reference;
    return {p, r, 2 * p * r / (p + r)};
  }
};

[[nodiscard]] std::vector<std::string> rouge_tokens(std::string_view text, bool stem = false);

/// @throws UsageError if n is 0
[[nodiscard]] OverlapScore rouge_n(std::string_view reference, std::string_view prediction,
                                   std::size_t n, bool stem = false);
[[nodiscard]] OverlapScore rouge_l(std::string_view reference, std::string_view prediction,
                                   bool stem = false);
[[nodiscard]] OverlapScore rouge_lsum(std::string_view reference, std::string_view prediction,
                                      bool stem = false);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>
#include <map>

#include <espalier/core/error.hpp>
#include <espalier/eval/metrics/ngrams.hpp>
#include <espalier/eval/metrics/porter_stemmer.hpp>
#include <espalier/eval/metrics/python_text.hpp>

namespace espalier::eval::metrics {

namespace detail {

using RougeWords = std::vector<std::string>;

/// Lengths of longest common subsequences of all prefixes: row i, column j.
class SubsequenceTable {
 public:
  SubsequenceTable(const RougeWords& a, const RougeWords& b)
      : a_(a), b_(b), width_(b.size() + 1), cells_((a.size() + 1) * width_, 0) {
    for (std::size_t i = 1; i <= a.size(); ++i) {
      for (std::size_t j = 1; j <= b.size(); ++j) {
        at(i, j) =
            a[i - 1] == b[j - 1] ? at(i - 1, j - 1) + 1 : std::max(at(i - 1, j), at(i, j - 1));
      }
    }
  }
  /// Marks the words of `a` that take part in one longest common subsequence.
  void mark(std::vector<bool>& marks) {
    for (std::size_t i = a_.size(), j = b_.size(); i > 0 && j > 0;) {
      if (a_[i - 1] == b_[j - 1]) {
        marks[--i] = true;
        --j;
      } else if (at(i, j - 1) > at(i - 1, j)) {
        --j;
      } else {
        --i;
      }
    }
  }

 private:
  std::uint32_t& at(std::size_t i, std::size_t j) { return cells_[i * width_ + j]; }

  const RougeWords& a_;
  const RougeWords& b_;
  std::size_t width_;
  std::vector<std::uint32_t> cells_;
};

/// Length of the longest common subsequence.
inline std::size_t common_length(const RougeWords& a, const RougeWords& b) {
  std::vector<std::size_t> row(b.size() + 1, 0);
  for (const std::string& word : a) {
    std::size_t across = 0;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t above = row[j];
      row[j] = word == b[j - 1] ? across + 1 : std::max(above, row[j - 1]);
      across = above;
    }
  }
  return row.back();
}

inline std::vector<RougeWords> rouge_lines(std::string_view text, bool stem) {
  std::vector<RougeWords> lines;
  for (const std::string_view line : split(text, "\n")) {
    if (!line.empty()) lines.push_back(rouge_tokens(line, stem));
  }
  return lines;
}

inline std::map<std::string_view, std::size_t> word_counts(const std::vector<RougeWords>& lines) {
  std::map<std::string_view, std::size_t> counts;
  for (const RougeWords& line : lines) {
    for (const std::string& w : line) ++counts[w];
  }
  return counts;
}

}  // namespace detail

ESP_INLINE std::vector<std::string> rouge_tokens(std::string_view text, bool stem) {
  std::vector<std::string> words;
  std::string word;
  for (const char c : lower(text) + ' ') {
    if ((c >= 'a' && c <= 'z') || is_ascii_digit(c)) {
      word += c;
    } else if (!word.empty()) {
      words.push_back(stem && word.size() > 3 ? porter_stem(word) : word);
      word.clear();
    }
  }
  return words;
}

ESP_INLINE OverlapScore rouge_n(std::string_view reference, std::string_view prediction,
                                std::size_t n, bool stem) {
  ESP_REQUIRE(n > 0, UsageError, "ROUGE of n-grams needs n above 0");
  const detail::RougeWords r = rouge_tokens(reference, stem), p = rouge_tokens(prediction, stem);
  const std::size_t common = common_ngrams(count_ngrams(r, n), count_ngrams(p, n));
  return OverlapScore::of(static_cast<double>(common),
                          static_cast<double>(ngram_total(p.size(), n)),
                          static_cast<double>(ngram_total(r.size(), n)));
}

ESP_INLINE OverlapScore rouge_l(std::string_view reference, std::string_view prediction,
                                bool stem) {
  const detail::RougeWords r = rouge_tokens(reference, stem), p = rouge_tokens(prediction, stem);
  return OverlapScore::of(static_cast<double>(detail::common_length(r, p)),
                          static_cast<double>(p.size()), static_cast<double>(r.size()));
}

ESP_INLINE OverlapScore rouge_lsum(std::string_view reference, std::string_view prediction,
                                   bool stem) {
  const std::vector<detail::RougeWords> references = detail::rouge_lines(reference, stem),
                                        predictions = detail::rouge_lines(prediction, stem);
  std::map<std::string_view, std::size_t> in_reference = detail::word_counts(references),
                                          in_prediction = detail::word_counts(predictions);
  double reference_words = 0, prediction_words = 0, common = 0;
  for (const auto& [word, count] : in_reference) reference_words += static_cast<double>(count);
  for (const auto& [word, count] : in_prediction) prediction_words += static_cast<double>(count);
  for (const detail::RougeWords& line : references) {
    std::vector<bool> marks(line.size(), false);
    for (const detail::RougeWords& p : predictions) detail::SubsequenceTable(line, p).mark(marks);
    for (std::size_t i = 0; i < line.size(); ++i) {
      std::size_t& left = in_reference[line[i]];
      std::size_t& other = in_prediction[line[i]];
      if (!marks[i] || left == 0 || other == 0) continue;
      --left;
      --other;
      ++common;
    }
  }
  return OverlapScore::of(common, prediction_words, reference_words);
}

}  // namespace espalier::eval::metrics
#endif
