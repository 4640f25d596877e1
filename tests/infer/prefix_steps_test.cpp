// SPDX-License-Identifier: Apache-2.0
#include <espalier/infer/prefix_steps.hpp>

#include <set>

#include <espalier/core/random.hpp>

#include "support/catch.hpp"

namespace espalier::infer {
namespace {

using Ids = std::vector<std::int32_t>;

std::vector<TokenList> lists_of(const std::vector<Ids>& prompts) {
  return {prompts.begin(), prompts.end()};
}

/// Prompts as they come: a few heads, each with several bodies, some bodies equal up to a word.
std::vector<Ids> prompts_from(std::uint64_t seed, std::size_t count) {
  const Philox random(seed);
  std::vector<Ids> prompts;
  for (std::size_t i = 0; i < count; ++i) {
    Ids ids;
    const std::uint32_t depth = 1 + random.below(100 * i, 12);
    for (std::uint32_t d = 0; d < depth; ++d) {
      ids.push_back(static_cast<std::int32_t>(random.below(100 * i + 1 + d, d < 8 ? 2 : 5)));
    }
    prompts.push_back(ids);
  }
  return prompts;
}

/// Nodes of the trie of all prompts without their last tokens, by collecting every prefix, and each
/// prompt's last token, which is computed for its logits.
std::size_t least_work(const std::vector<Ids>& prompts) {
  std::set<Ids> nodes;
  for (const Ids& p : prompts) {
    for (std::size_t n = 1; n < p.size(); ++n) nodes.insert(Ids(p.begin(), p.begin() + n));
  }
  return nodes.size() + prompts.size();
}

}  // namespace

TEST_CASE("prefix steps: takes every prompt once, each with a token of its own", "[infer]") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const std::vector<Ids> prompts = prompts_from(seed, 1 + seed % 40);
    const auto lists = lists_of(prompts);
    for (const std::int64_t worth : {1, 3, 10}) {
      const auto steps = prefix_steps(lists, worth);
      std::set<std::size_t> seen;
      for (const PrefixStep& step : steps) {
        seen.insert(step.prompt);
        CHECK(step.path >= 0);
        CHECK(step.path < std::ssize(prompts[step.prompt]));
      }
      CHECK(steps.size() == prompts.size());
      CHECK(seen.size() == prompts.size());
    }
  }
}

TEST_CASE("prefix steps: computes no more than the trie has nodes, if every token is worth a pass",
          "[infer]") {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    const std::vector<Ids> prompts = prompts_from(seed, 1 + seed % 40);
    const auto lists = lists_of(prompts);
    const auto computed = computed_tokens(lists, prefix_steps(lists, 1));
    CHECK(computed <= static_cast<std::int64_t>(least_work(prompts)));
    CHECK(computed_tokens(lists, prefix_steps(lists, 5)) >= computed);
  }
}

TEST_CASE("prefix steps: one short prompt does not take the shots from all others", "[infer]") {
  const Ids shots(1000, 7);
  std::vector<Ids> prompts;
  for (std::int32_t i = 0; i < 50; ++i) {
    prompts.push_back(shots);
    prompts.back().insert(prompts.back().end(), {100 + i, 1, 2});
  }
  prompts.push_back({7, 7, 3});
  const auto lists = lists_of(prompts);
  CHECK(computed_tokens(lists, prefix_steps(lists)) == 1000 + 50 * 3 + 1);
}

TEST_CASE("prefix steps: few shared tokens are computed again rather than in a pass of their own",
          "[infer]") {
  const std::vector<Ids> prompts = {{1, 2, 3, 4}, {1, 2, 3, 5}, {9, 9}};
  for (const PrefixStep& step : prefix_steps(lists_of(prompts))) CHECK(step.path == 0);
  CHECK(prefix_steps({}).empty());
}

}  // namespace espalier::infer
