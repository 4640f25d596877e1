// SPDX-License-Identifier: Apache-2.0
// Translation edit rate (Snover et al. 2006) as tercom and sacrebleu 2 compute it: the words that
// must be inserted, deleted or substituted, and the blocks that must be moved, over the words of
// the reference, times 100. Words are lower case, between white space. Moves are found greedily:
// each time the one that shortens the edit distance most; of equal ones the longest, then the one
// that begins first, then the one that goes the least far.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/ter.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include <espalier/core/inline.hpp>
#include <espalier/eval/metrics/bleu.hpp>

namespace espalier::eval::metrics {

/// Edits over a whole test set, 100 times, by the mean length of each sentence's references; of
/// these the one with the fewest edits counts.
/// @throws UsageError if a sentence has no reference
[[nodiscard]] double corpus_ter(std::span<const Translation> corpus);

/// Insertions, deletions, substitutions and moves that turn `words` into `reference`.
[[nodiscard]] std::size_t translation_edits(std::vector<std::string_view> words,
                                            const std::vector<std::string_view>& reference);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>

#include <espalier/eval/metrics/python_text.hpp>

namespace espalier::eval::metrics {

namespace detail {

using Words = std::vector<std::string_view>;

inline constexpr std::size_t kMaxMovedWords = 10, kMaxMoveDistance = 50, kMaxMoves = 1000;

/// How words and reference correspond in a cheapest edit.
struct EditAlignment {
  std::size_t edits = 0;
  std::vector<std::ptrdiff_t> word_of;            // of each reference word: the word there, or the
                                                  // one before; -1 before the first
  std::vector<bool> word_wrong, reference_wrong;  // not copied unchanged
};

/// Edit distance within a band around the diagonal of the lengths, 25 to each side where that
/// suffices; the last row is whole.
class EditTable {
 public:
  EditTable(const Words& words, const Words& reference) : words_(words), reference_(reference) {
    const std::size_t width = reference.size() + 1;
    add_row(0, width);
    for (std::size_t j = 0; j < width; ++j) {
      cells_[j] = {static_cast<std::uint32_t>(j), Step::insert};
    }
    const double ratio =
        words.empty() ? 1
                      : static_cast<double>(reference.size()) / static_cast<double>(words.size());
    const double band = 25 < ratio / 2 ? std::ceil(ratio / 2 + 25) : 25;
    for (std::size_t i = 1; i <= words.size(); ++i) {
      const double diagonal = std::floor(static_cast<double>(i) * ratio);
      const auto first = static_cast<std::size_t>(std::max(0.0, diagonal - band));
      const auto last = static_cast<std::size_t>(diagonal + band);
      const std::size_t end = i == words.size() ? width : std::min(width, last);
      add_row(first, std::max(first, end));
      for (std::size_t j = first; j < end; ++j) fill(i, j);
    }
  }

  std::size_t edits() { return at(words_.size(), reference_.size()).cost; }

  EditAlignment alignment() {
    EditAlignment a;
    a.edits = edits();
    a.word_of.assign(reference_.size(), -1);
    a.word_wrong.assign(words_.size(), true);
    a.reference_wrong.assign(reference_.size(), true);
    for (std::size_t i = words_.size(), j = reference_.size(); i > 0 || j > 0;) {
      const Step step = at(i, j).step;
      if (step != Step::remove) a.word_of[j - 1] = static_cast<std::ptrdiff_t>(i) - 1;
      if (step == Step::keep) a.word_wrong[i - 1] = a.reference_wrong[j - 1] = false;
      if (step != Step::insert) --i;
      if (step != Step::remove) --j;
    }
    return a;
  }

 private:
  enum class Step : std::uint8_t { none, keep, substitute, remove, insert };
  struct Cell {
    std::uint32_t cost;
    Step step;
  };
  /// Columns [first, end), from cell `start` on.
  struct Row {
    std::size_t first, end, start;
  };
  static constexpr std::uint32_t kFar = 1u << 30;

  void add_row(std::size_t first, std::size_t end) {
    rows_.push_back({first, end, cells_.size()});
    cells_.resize(cells_.size() + end - first, {kFar, Step::none});
  }
  Cell at(std::size_t i, std::size_t j) const {
    const Row& row = rows_[i];
    return j < row.first || j >= row.end ? Cell{kFar, Step::none}
                                         : cells_[row.start + j - row.first];
  }

  void fill(std::size_t i, std::size_t j) {
    Cell best = {at(i - 1, j).cost + 1, Step::remove};
    if (j > 0) {
      const bool same = words_[i - 1] == reference_[j - 1];
      const Cell across = {at(i - 1, j - 1).cost + (same ? 0 : 1),
                           same ? Step::keep : Step::substitute};
      if (across.cost <= best.cost) best = across;
      if (at(i, j - 1).cost + 1 < best.cost) best = {at(i, j - 1).cost + 1, Step::insert};
    }
    cells_[rows_[i].start + j - rows_[i].first] = best;
  }

  const Words& words_;
  const Words& reference_;
  std::vector<Row> rows_;
  std::vector<Cell> cells_;
};

/// `words` with `count` of them from `from` on put before the word at `to`; within the block
/// itself, that many words later.
inline Words with_block_moved(const Words& words, std::size_t from, std::size_t count,
                              std::size_t to) {
  Words out = words;
  const auto at = [&](std::size_t i) { return out.begin() + static_cast<std::ptrdiff_t>(i); };
  if (to < from) {
    std::rotate(at(to), at(from), at(from + count));
  } else {
    const std::size_t end = to > from + count ? to : std::min(to + count, out.size());
    std::rotate(at(from), at(from + count), at(end));
  }
  return out;
}

struct Move {
  std::ptrdiff_t gain = std::numeric_limits<std::ptrdiff_t>::min();
  std::size_t length = 0, from = 0, to = 0;
  Words words;

  bool better_than(const Move& other) const {
    const auto rank = [](const Move& m) {
      return std::tuple(m.gain, m.length, -static_cast<std::ptrdiff_t>(m.from),
                        -static_cast<std::ptrdiff_t>(m.to));
    };
    return rank(*this) > rank(other);
  }
};

/// The best single move, tried out; `tried` counts all candidates of the sentence.
class MoveSearch {
 public:
  MoveSearch(const Words& words, const Words& reference, std::size_t& tried)
      : words_(words), reference_(reference), tried_(tried) {
    alignment_ = EditTable(words, reference).alignment();
  }

  Move best() {
    for (std::size_t from = 0; from < words_.size(); ++from) {
      for (std::size_t place = 0; place < reference_.size(); ++place) {
        const std::size_t distance = place > from ? place - from : from - place;
        if (distance > kMaxMoveDistance) continue;
        for (std::size_t n = 1;
             n <= kMaxMovedWords && from + n <= words_.size() && place + n <= reference_.size() &&
             words_[from + n - 1] == reference_[place + n - 1];
             ++n) {
          if (!worth_trying(from, place, n)) continue;
          try_targets(from, place, n);
          if (tried_ >= kMaxMoves) return best_;
        }
      }
    }
    return best_;
  }

 private:
  /// Something is wrong both in the block and where it belongs, and it is not there already.
  bool worth_trying(std::size_t from, std::size_t place, std::size_t n) const {
    const auto any = [n](const std::vector<bool>& wrong, std::size_t begin) {
      const auto first = wrong.begin() + static_cast<std::ptrdiff_t>(begin);
      return std::find(first, first + static_cast<std::ptrdiff_t>(n), true) !=
             first + static_cast<std::ptrdiff_t>(n);
    };
    const std::ptrdiff_t there = alignment_.word_of[place];
    const bool inside =
        there >= static_cast<std::ptrdiff_t>(from) && there < static_cast<std::ptrdiff_t>(from + n);
    return any(alignment_.word_wrong, from) && any(alignment_.reference_wrong, place) && !inside;
  }

  void try_targets(std::size_t from, std::size_t place, std::size_t n) {
    std::ptrdiff_t previous = -1;
    for (std::size_t i = 0; i <= n; ++i) {  // after the reference word at place - 1 + i
      if (place + i > reference_.size()) break;
      const std::ptrdiff_t to = place + i == 0 ? 0 : alignment_.word_of[place + i - 1] + 1;
      if (to == previous) continue;
      previous = to;
      Move move{0, n, from, static_cast<std::size_t>(to), {}};
      move.words = with_block_moved(words_, from, n, move.to);
      move.gain = static_cast<std::ptrdiff_t>(alignment_.edits) -
                  static_cast<std::ptrdiff_t>(EditTable(move.words, reference_).edits());
      ++tried_;
      if (best_.length == 0 || move.better_than(best_)) best_ = std::move(move);
    }
  }

  const Words& words_;
  const Words& reference_;
  std::size_t& tried_;
  EditAlignment alignment_;
  Move best_;
};

}  // namespace detail

ESP_INLINE std::size_t translation_edits(std::vector<std::string_view> words,
                                         const std::vector<std::string_view>& reference) {
  if (reference.empty()) return words.size();
  std::size_t moves = 0, tried = 0;
  for (;;) {
    detail::Move move = detail::MoveSearch(words, reference, tried).best();
    if (tried >= detail::kMaxMoves || move.length == 0 || move.gain <= 0) break;
    ++moves;
    words = std::move(move.words);
  }
  return moves + detail::EditTable(words, reference).edits();
}

ESP_INLINE double corpus_ter(std::span<const Translation> corpus) {
  double edits = 0, length = 0;
  for (std::size_t i = 0; i < corpus.size(); ++i) {
    detail::require_references(corpus[i], i);
    const std::string hypothesis = lower(valid_text(corpus[i].hypothesis));
    std::size_t fewest = std::numeric_limits<std::size_t>::max(), words = 0;
    for (const std::string& r : corpus[i].references) {
      const std::string text = lower(valid_text(r));
      const detail::Words reference = split(text);
      words += reference.size();
      fewest = std::min(fewest, translation_edits(split(hypothesis), reference));
    }
    edits += static_cast<double>(fewest);
    length += static_cast<double>(words) / static_cast<double>(corpus[i].references.size());
  }
  if (length == 0) return edits > 0 ? 100 : 0;
  return 100 * edits / length;
}

}  // namespace espalier::eval::metrics
#endif
