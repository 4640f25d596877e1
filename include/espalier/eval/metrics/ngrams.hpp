// SPDX-License-Identifier: Apache-2.0
// Counts of n-grams of a sequence: of words (std::vector<std::string_view>) or of characters
// (std::u32string).
#pragma once

#include <algorithm>
#include <cstddef>
#include <map>

namespace espalier::eval::metrics {

template <class Sequence>
using NgramCounts = std::map<Sequence, std::size_t>;

template <class Sequence>
[[nodiscard]] NgramCounts<Sequence> count_ngrams(const Sequence& sequence, std::size_t n) {
  NgramCounts<Sequence> counts;
  for (std::size_t i = 0; i + n <= sequence.size(); ++i) {
    const auto first = sequence.begin() + static_cast<std::ptrdiff_t>(i);
    ++counts[Sequence(first, first + static_cast<std::ptrdiff_t>(n))];
  }
  return counts;
}

/// Number of n-grams in a sequence of `length`.
[[nodiscard]] inline std::size_t ngram_total(std::size_t length, std::size_t n) {
  return length < n ? 0 : length - n + 1;
}

/// Sum over n-grams of the smaller of both counts.
template <class Sequence>
[[nodiscard]] std::size_t common_ngrams(const NgramCounts<Sequence>& a,
                                        const NgramCounts<Sequence>& b) {
  std::size_t common = 0;
  for (const auto& [ngram, count] : a) {
    const auto it = b.find(ngram);
    if (it != b.end()) common += std::min(count, it->second);
  }
  return common;
}

/// The larger of both counts of each n-gram.
template <class Sequence>
void keep_larger(NgramCounts<Sequence>& counts, const NgramCounts<Sequence>& other) {
  for (const auto& [ngram, count] : other) counts[ngram] = std::max(counts[ngram], count);
}

}  // namespace espalier::eval::metrics
