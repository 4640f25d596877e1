// SPDX-License-Identifier: Apache-2.0
// A bounded cache of encoded words and their ids; results do not depend on it. Encoding is const
// and thread-safe: each call borrows a cache from a pool.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/word_cache.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include <espalier/text/bpe.hpp>
#include <espalier/text/vocabulary.hpp>

namespace espalier::text {

class WordCache {
 public:
  static constexpr std::size_t kMaxWordBytes = 64;
  static constexpr std::size_t kMaxWords = 1 << 16;

  BpeScratch scratch;

  /// Appends the ids of `word` to `out` if they are known.
  bool find(std::string_view word, std::vector<std::int32_t>& out) const {
    const auto it = entries_.find(word);
    if (it == entries_.end()) return false;
    const auto first = ids_.begin() + it->second.begin;
    out.insert(out.end(), first, first + it->second.count);
    return true;
  }
  void insert(std::string_view word, std::span<const std::int32_t> ids) {
    if (entries_.size() >= kMaxWords) return;
    entries_.emplace(word, Entry{static_cast<std::uint32_t>(ids_.size()),
                                 static_cast<std::uint32_t>(ids.size())});
    ids_.insert(ids_.end(), ids.begin(), ids.end());
  }

 private:
  struct Entry {
    std::uint32_t begin, count;
  };
  std::unordered_map<std::string, Entry, StringHash, std::equal_to<>> entries_;
  std::vector<std::int32_t> ids_;
};

class WordCachePool {
 public:
  /// A borrowed cache; returned to the pool on destruction.
  class Lease {
   public:
    Lease(WordCachePool& pool, std::unique_ptr<WordCache> cache)
        : pool_(pool), cache_(std::move(cache)) {}
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    ~Lease() {
      const std::lock_guard lock(pool_.mutex_);
      pool_.idle_.push_back(std::move(cache_));
    }
    WordCache& operator*() const { return *cache_; }

   private:
    WordCachePool& pool_;
    std::unique_ptr<WordCache> cache_;
  };

  Lease borrow() {
    std::unique_ptr<WordCache> cache;
    {
      const std::lock_guard lock(mutex_);
      if (!idle_.empty()) {
        cache = std::move(idle_.back());
        idle_.pop_back();
      }
    }
    if (!cache) cache = std::make_unique<WordCache>();
    return {*this, std::move(cache)};
  }

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<WordCache>> idle_;
};

}  // namespace espalier::text
