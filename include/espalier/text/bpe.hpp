// SPDX-License-Identifier: Apache-2.0
// Byte-pair encoding of one word: characters become symbols, then the adjacent pair of lowest rank
// (leftmost on ties) is merged until none is left. Sennrich et al. 2016, arXiv:1508.07909; unknown
// characters and byte fallback as in Hugging Face's tokenizers. O(n log n) by a heap over a linked
// list, so that a megabyte without a space is fast. Deterministic.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/bpe.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/text/unicode.hpp>
#include <espalier/text/vocabulary.hpp>

namespace espalier::text {

/// (left id, right id) -> rank and id of the merged token; open addressing, one cache line a hit.
class MergeTable {
 public:
  struct Merge {
    std::uint32_t rank = 0;
    std::int32_t id = -1;  // -1: the pair does not merge
  };

  MergeTable() : slots_(1) {}
  explicit MergeTable(std::size_t expected) {
    std::size_t capacity = 16;
    while (capacity < expected * 2) capacity *= 2;
    slots_.resize(capacity);
  }

  /// Adds a pair; a pair given twice keeps the later rank.
  void insert(std::int32_t left, std::int32_t right, Merge merge) {
    Slot& slot = slots_[find_slot(key_of(left, right))];
    if (slot.merge.id < 0) ++size_;
    slot = {key_of(left, right), merge};
    if (size_ * 2 > slots_.size()) grow();
  }

  Merge find(std::int32_t left, std::int32_t right) const {
    return slots_[find_slot(key_of(left, right))].merge;
  }

 private:
  struct Slot {
    std::uint64_t key = 0;
    Merge merge;
  };

  static std::uint64_t key_of(std::int32_t left, std::int32_t right) {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 |
           static_cast<std::uint32_t>(right);
  }
  std::size_t find_slot(std::uint64_t key) const {
    const std::size_t mask = slots_.size() - 1;
    std::size_t i = (key * 0x9E3779B97F4A7C15u >> 32) & mask;
    while (slots_[i].merge.id >= 0 && slots_[i].key != key) i = (i + 1) & mask;
    return i;
  }
  void grow() {
    std::vector<Slot> old(slots_.size() * 2);
    old.swap(slots_);
    for (const Slot& slot : old) {
      if (slot.merge.id >= 0) slots_[find_slot(slot.key)] = slot;
    }
  }

  std::vector<Slot> slots_;
  std::size_t size_ = 0;
};

/// Working memory of BpeModel::encode_word, kept between words by the caller.
struct BpeScratch {
  struct Symbol {
    std::int32_t id;
    std::int32_t previous, next;  // -1: none
  };
  struct Candidate {
    std::uint64_t order;  // rank, then position
    std::int32_t id;
    bool operator<(const Candidate& other) const { return order > other.order; }
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

struct BpeOptions {
  std::int32_t unk_id = -1;  // -1: characters outside the vocabulary are dropped
  bool fuse_unk = false;
  bool byte_fallback = false;
  bool ignore_merges = false;  // a word that is a token is not split
};

class BpeModel {
 public:
  BpeModel() = default;
  BpeModel(const Vocabulary& vocabulary, MergeTable merges, BpeOptions options)
      : merges_(std::move(merges)), options_(options) {
    single_byte_.fill(-1);
    for (int b = 0; b < 0x80; ++b) {
      const char c = static_cast<char>(b);
      single_byte_[b] = vocabulary.find(std::string_view(&c, 1));
    }
    constexpr char kHex[] = "0123456789ABCDEF";
    for (int b = 0; b < 256; ++b) {
      const char name[] = {'<', '0', 'x', kHex[b >> 4], kHex[b & 15], '>'};
      fallback_[b] = vocabulary.find(std::string_view(name, 6));
    }
  }

  const BpeOptions& options() const { return options_; }

  /// Appends the ids of `word` (valid UTF-8) to `out`.
  void encode_word(const Vocabulary& vocabulary, std::string_view word, BpeScratch& scratch,
                   std::vector<std::int32_t>& out) const {
    if (options_.ignore_merges) {
      if (const std::int32_t id = vocabulary.find(word); id >= 0) {
        out.push_back(id);
        return;
      }
    }
    ESP_REQUIRE(word.size() < (std::size_t{1} << 31), Error, "encode: one stretch of text has ",
                word.size(), " bytes, at most 2^31 - 1 are supported; split the text");
    to_symbols(vocabulary, word, scratch.symbols);
    merge(scratch);
    if (scratch.symbols.empty()) return;
    for (std::int32_t i = 0; i >= 0; i = scratch.symbols[i].next) {
      out.push_back(scratch.symbols[i].id);
    }
  }

 private:
  using Symbols = std::vector<BpeScratch::Symbol>;

  void to_symbols(const Vocabulary& vocabulary, std::string_view word, Symbols& symbols) const {
    symbols.clear();
    bool unk_pending = false;
    const auto add = [&](std::int32_t id) {
      const auto n = static_cast<std::int32_t>(symbols.size());
      symbols.push_back({id, n - 1, n + 1});
    };
    for (std::size_t pos = 0; pos < word.size();) {
      bool whole = false;
      const int size = utf8_prefix(word, pos, whole);
      const std::string_view c = word.substr(pos, size);
      pos += size;
      const std::int32_t id =
          size == 1 ? single_byte_[static_cast<std::uint8_t>(c[0])] : vocabulary.find(c);
      if (id >= 0) {
        if (unk_pending) add(options_.unk_id);
        unk_pending = false;
        add(id);
      } else if (options_.byte_fallback && has_fallback(c)) {
        // A pending unknown token stays pending: the reference emits it after these bytes.
        for (const char b : c) add(fallback_[static_cast<std::uint8_t>(b)]);
      } else if (options_.unk_id >= 0) {
        if (unk_pending && !options_.fuse_unk) add(options_.unk_id);
        unk_pending = true;
      }
    }
    if (unk_pending) add(options_.unk_id);
    if (!symbols.empty()) symbols.back().next = -1;
  }

  bool has_fallback(std::string_view c) const {
    return std::all_of(c.begin(), c.end(),
                       [&](char b) { return fallback_[static_cast<std::uint8_t>(b)] >= 0; });
  }

  void merge(BpeScratch& scratch) const {
    Symbols& symbols = scratch.symbols;
    std::vector<BpeScratch::Candidate>& heap = scratch.heap;
    heap.clear();
    const auto candidate = [&](std::int32_t left) {
      const std::int32_t right = symbols[left].next;
      if (right < 0) return;
      const MergeTable::Merge m = merges_.find(symbols[left].id, symbols[right].id);
      if (m.id < 0) return;
      heap.push_back({std::uint64_t{m.rank} << 32 | static_cast<std::uint32_t>(left), m.id});
    };
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) candidate(static_cast<std::int32_t>(i));
    std::make_heap(heap.begin(), heap.end());
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end());
      const BpeScratch::Candidate best = heap.back();
      heap.pop_back();
      const auto left = static_cast<std::int32_t>(best.order & 0xFFFFFFFFu);
      const std::int32_t right = symbols[left].next;
      if (symbols[left].id < 0 || right < 0) continue;  // merged since, or the last symbol
      if (merges_.find(symbols[left].id, symbols[right].id).id != best.id) continue;
      symbols[left].id = best.id;
      symbols[left].next = symbols[right].next;
      symbols[right].id = -1;
      if (symbols[left].next >= 0) symbols[symbols[left].next].previous = left;
      const auto push = [&](std::int32_t at) {
        const std::size_t before = heap.size();
        candidate(at);
        if (heap.size() > before) std::push_heap(heap.begin(), heap.end());
      };
      if (symbols[left].previous >= 0) push(symbols[left].previous);
      push(left);
    }
  }

  MergeTable merges_;
  BpeOptions options_;
  std::array<std::int32_t, 256> single_byte_{};
  std::array<std::int32_t, 256> fallback_{};
};

}  // namespace espalier::text
