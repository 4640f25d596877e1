// SPDX-License-Identifier: Apache-2.0
// KV caches in pages against plain vectors of rows: what they hold, and what they share.
#include <espalier/nn/kv_cache.hpp>

#include <set>

#include <espalier/core/random.hpp>

#include "support/catch.hpp"

using namespace espalier;

namespace {

constexpr std::int64_t kLayers = 2, kWidth = 3, kPage = cpu::kPageKeys;

/// A cache, and what it must hold: a number for each token.
struct Checked {
  KvCache<float> cache{kLayers, kWidth, 1};
  std::vector<float> tokens;

  static float key(float token, std::int64_t layer, std::int64_t c) {
    return token * 100 + static_cast<float>(layer * 10 + c);
  }
  void append(std::int64_t count, float first) {
    for (std::int64_t l = 0; l < kLayers; ++l) {
      std::vector<float> k, v;
      for (std::int64_t i = 0; i < count * kWidth; ++i) {
        k.push_back(key(first + static_cast<float>(i / kWidth), l, i % kWidth));
        v.push_back(-k.back());
      }
      cache.append(l, k.data(), v.data(), count);
    }
    cache.advance(count);
    for (std::int64_t i = 0; i < count; ++i) tokens.push_back(first + static_cast<float>(i));
  }
  void truncate(std::int64_t length) {
    cache.truncate(length);
    tokens.resize(static_cast<std::size_t>(length));
  }
  Checked clone(std::int64_t length) const {
    Checked c{cache.clone(length, length + 9), tokens};
    c.tokens.resize(static_cast<std::size_t>(length));
    return c;
  }
  bool holds() const {
    bool good = cache.length() == std::ssize(tokens);
    for (std::int64_t l = 0; l < kLayers; ++l) {
      const auto pages = cache.pages(l);
      for (std::size_t t = 0; t < tokens.size(); ++t) {
        for (std::int64_t c = 0; c < kWidth; ++c) {
          const std::int64_t at = static_cast<std::int64_t>(t) % kPage * kWidth + c;
          const auto& page = pages[t / kPage];
          const float want = key(tokens[t], l, c);
          good = good && page.k[at] == want && page.v[at] == -want;
        }
      }
    }
    return good;
  }
};

}  // namespace

TEST_CASE("KvCache: grows, forgets, and clones that do not see each other's rows",
          "[nn][kv_cache]") {
  Checked a;
  a.append(1, 0);
  a.append(4, 1);
  REQUIRE(a.holds());
  const Checked copy = a.clone(2);
  a.truncate(1);
  a.append(1, 50);
  REQUIRE(a.holds());
  REQUIRE(copy.holds());
  REQUIRE_THROWS_WITH(copy.cache.clone(3, 8), "KvCache: clone of 3 tokens, it holds 2");
  REQUIRE_THROWS_WITH(a.cache.truncate(3), "KvCache: truncate to 3, it holds 2");
}

TEST_CASE("KvCache: any order of appending, truncating and cloning keeps every cache's rows",
          "[nn][kv_cache]") {
  const Philox random(5, 1);
  std::uint64_t draw = 0;
  const auto below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random.below(draw++, static_cast<std::uint32_t>(n)));
  };
  std::vector<Checked> all(1);
  for (int step = 0; step < 400; ++step) {
    Checked& one = all[static_cast<std::size_t>(below(std::ssize(all)))];
    const std::int64_t length = one.cache.length();
    switch (below(4)) {
      case 0:
        one.truncate(length - below(std::min<std::int64_t>(length + 1, 2 * kPage)));
        break;
      case 1: {
        Checked clone = one.clone(length - below(length / 4 + 1));
        if (all.size() < 8) {
          all.push_back(std::move(clone));
        } else {
          all[static_cast<std::size_t>(below(8))] = std::move(clone);
        }
        break;
      }
      default:
        one.append(1 + below(step % 5 == 0 ? 3 * kPage : 4), static_cast<float>(step));
    }
    for (const Checked& c : all) REQUIRE(c.holds());
  }
}

TEST_CASE("KvCache: sequences with a common prefix hold its whole pages once", "[nn][kv_cache]") {
  constexpr std::int64_t kPrefix = 1500, kOwn = 20, kSequences = 16;
  Checked path;
  path.append(kPrefix, 0);
  std::vector<Checked> sequences;
  for (std::int64_t s = 0; s < kSequences; ++s) {
    sequences.push_back(path.clone(kPrefix));
    sequences.back().append(kOwn, static_cast<float>(2000 + 100 * s));
  }
  std::set<const float*> pages;
  const auto count = [&](const Checked& c) {
    for (const auto& page : c.cache.pages(0)) pages.insert(page.k);
  };
  count(path);
  REQUIRE(pages.size() == 16);  // 15 of 96 tokens, one of 60
  for (const Checked& c : sequences) {
    REQUIRE(c.holds());
    count(c);
  }
  REQUIRE(path.holds());
  // Each copies the last page, which has room for its own tokens: 32 pages in place of 17 * 16.
  REQUIRE(pages.size() == 15 + 1 + kSequences);
  REQUIRE(path.cache.page_elements() == kLayers * 2 * kPage * kWidth);
}
