// SPDX-License-Identifier: Apache-2.0
// DROP's exact match and F1 (Dua et al. 2019) of answers that are one or more spans. Spans are
// normalized words, where numbers keep their signs and points. Exact match: the same set of spans.
// F1: spans are paired so that the sum of the F1 of their sets of words is largest; a pair whose
// gold has numbers, none of which is predicted, counts 0; the mean over the longer list, rounded to
// two decimals. Of several gold answers the best counts for each score.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/drop.hpp is host-only; include it from a .cpp"
#endif

#include <span>
#include <string>
#include <vector>

#include <espalier/core/inline.hpp>

namespace espalier::eval::metrics {

struct DropScores {
  double em = 0, f1 = 0;
};
/// @param golds each a list of spans; one whose first span is blank counts nothing
/// @throws UsageError if the prediction or a gold has no span, or more than 64
[[nodiscard]] DropScores drop_scores(std::span<const std::vector<std::string>> golds,
                                     const std::vector<std::string>& prediction);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string_view>

#include <espalier/core/error.hpp>
#include <espalier/eval/metrics/python_number.hpp>
#include <espalier/eval/metrics/text_match.hpp>

namespace espalier::eval::metrics {

namespace detail {

struct DropSpans {
  explicit DropSpans(const std::vector<std::string>& spans) {
    ESP_REQUIRE(!spans.empty() && spans.size() <= 64, UsageError,
                "DROP compares answers of 1 to 64 spans, found ", spans.size());
    for (const std::string& s : spans) {
      const std::string words = normalized_words(valid_text(s), true);
      const std::vector<std::string_view> all = split(words);
      bags.emplace_back(all.begin(), all.end());
      texts.insert(words);
    }
  }
  std::set<std::string> texts;
  std::vector<std::set<std::string>> bags;
};

inline double drop_bag_f1(const std::set<std::string>& gold,
                          const std::set<std::string>& predicted) {
  bool gold_numbers = false, number_found = false;
  double common = 0;
  for (const std::string& word : gold) {
    const bool both = predicted.count(word) > 0;
    common += both ? 1 : 0;
    if (!python_float(word)) continue;
    gold_numbers = true;
    number_found = number_found || both;
  }
  if (gold_numbers && !number_found) return 0;
  const double precision = predicted.empty() ? 1 : common / static_cast<double>(predicted.size());
  const double recall = gold.empty() ? 1 : common / static_cast<double>(gold.size());
  return precision + recall == 0 ? 0 : 2 * precision * recall / (precision + recall);
}

/// The largest sum of scores of a pairing (Kuhn's and Munkres' method, with potentials); rows no
/// longer than columns.
inline double largest_pairing(const std::vector<std::vector<double>>& scores) {
  const std::size_t rows = scores.size(), columns = scores[0].size();
  std::vector<double> u(rows + 1, 0), v(columns + 1, 0);
  std::vector<std::size_t> row_of(columns + 1, 0), previous(columns + 1, 0);
  for (std::size_t row = 1; row <= rows; ++row) {
    std::vector<double> slack(columns + 1, std::numeric_limits<double>::infinity());
    std::vector<bool> done(columns + 1, false);
    std::size_t at = 0;
    row_of[0] = row;
    do {
      done[at] = true;
      const std::size_t r = row_of[at];
      std::size_t next = 0;
      double smallest = std::numeric_limits<double>::infinity();
      for (std::size_t c = 1; c <= columns; ++c) {
        if (done[c]) continue;
        const double reduced = -scores[r - 1][c - 1] - u[r] - v[c];
        if (reduced < slack[c]) {
          slack[c] = reduced;
          previous[c] = at;
        }
        if (slack[c] < smallest) {
          smallest = slack[c];
          next = c;
        }
      }
      for (std::size_t c = 0; c <= columns; ++c) {
        if (done[c]) {
          u[row_of[c]] += smallest;
          v[c] -= smallest;
        } else {
          slack[c] -= smallest;
        }
      }
      at = next;
    } while (row_of[at] != 0);
    for (; at != 0; at = previous[at]) row_of[at] = row_of[previous[at]];
  }
  double sum = 0;
  for (std::size_t c = 1; c <= columns; ++c) {
    if (row_of[c] != 0) sum += scores[row_of[c] - 1][c - 1];
  }
  return sum;
}

}  // namespace detail

ESP_INLINE DropScores drop_scores(std::span<const std::vector<std::string>> golds,
                                  const std::vector<std::string>& prediction) {
  const detail::DropSpans predicted(prediction);
  DropScores best;
  for (const std::vector<std::string>& answer : golds) {
    const detail::DropSpans gold(answer);
    if (strip(answer[0]).empty()) continue;
    const bool gold_is_shorter = gold.bags.size() <= predicted.bags.size();
    const auto& rows = gold_is_shorter ? gold.bags : predicted.bags;
    const auto& columns = gold_is_shorter ? predicted.bags : gold.bags;
    std::vector<std::vector<double>> scores(rows.size(), std::vector<double>(columns.size()));
    for (std::size_t r = 0; r < rows.size(); ++r) {
      for (std::size_t c = 0; c < columns.size(); ++c) {
        scores[r][c] = gold_is_shorter ? detail::drop_bag_f1(rows[r], columns[c])
                                       : detail::drop_bag_f1(columns[c], rows[r]);
      }
    }
    const double f1 = detail::largest_pairing(scores) / static_cast<double>(columns.size());
    best.f1 = std::max(best.f1, std::nearbyint(f1 * 100) / 100);
    if (gold.texts == predicted.texts) best.em = 1;
  }
  return best;
}

}  // namespace espalier::eval::metrics
#endif
