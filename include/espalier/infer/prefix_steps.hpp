// SPDX-License-Identifier: Apache-2.0
// Which prefix of each prompt to compute once for several prompts. The prompts form a trie (shots,
// category, question, ...), which is walked depth first, so that one KV cache holds the shared
// tokens of all prompts that are still to come: the path. A pass over few tokens costs as much as
// one over many, so the path is not extended to save fewer than `kWorthAPass` tokens.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include <espalier/core/inline.hpp>

namespace espalier::infer {

/// Tokens of a prompt.
using TokenList = std::span<const std::int32_t>;

struct PrefixStep {
  std::size_t prompt;  // its number
  std::int64_t path;   // how many of its tokens come from the path; at least one does not
};

inline constexpr std::int64_t kWorthAPass = 64;

/// Number of leading tokens that are equal.
[[nodiscard]] inline std::int64_t common_prefix(TokenList a, TokenList b) {
  const std::size_t shorter = std::min(a.size(), b.size());
  return std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(shorter), b.begin())
             .first -
         a.begin();
}

/// The order to take the prompts in, each with its path. Before a step the path is truncated to
/// what it shares with the step's prompt, and then extended with tokens of that prompt, if need be.
/// @param worth tokens that an extension must save
[[nodiscard]] std::vector<PrefixStep> prefix_steps(std::span<const TokenList> prompts,
                                                   std::int64_t worth = kWorthAPass);

/// Tokens that a walk in these steps computes: extensions of the path, and what follows it.
[[nodiscard]] std::int64_t computed_tokens(std::span<const TokenList> prompts,
                                           std::span<const PrefixStep> steps);

}  // namespace espalier::infer

#ifdef ESP_BODIES
namespace espalier::infer {

namespace detail {

class PrefixWalk {
 public:
  PrefixWalk(std::span<const TokenList> prompts, std::int64_t worth)
      : prompts_(prompts), worth_(worth), order_(prompts.size()) {
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::stable_sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) {
      return std::lexicographical_compare(prompts[a].begin(), prompts[a].end(), prompts[b].begin(),
                                          prompts[b].end());
    });
    if (!order_.empty()) walk(0, order_.size(), 0);
  }
  std::vector<PrefixStep> take() { return std::move(steps_); }

 private:
  TokenList at(std::size_t i) const { return prompts_[order_[i]]; }

  /// Prompts `begin` to `end` of the order, whose first `path` tokens are computed.
  void walk(std::size_t begin, std::size_t end, std::int64_t path) {
    const std::int64_t common = common_prefix(at(begin), at(end - 1));
    // The shortest come first; each keeps a token to predict from.
    extend(path, std::min(common, std::ssize(at(begin)) - 1), end - begin);
    while (begin < end && std::ssize(at(begin)) == common) take(begin++, path);
    if (begin < end) extend(path, common, end - begin);
    while (begin < end) {
      const std::int32_t token = at(begin)[static_cast<std::size_t>(common)];
      std::size_t next = begin + 1;
      while (next < end && at(next)[static_cast<std::size_t>(common)] == token) ++next;
      if (next == begin + 1) {
        take(begin, path);
      } else {
        walk(begin, next, path);
      }
      begin = next;
    }
  }
  void extend(std::int64_t& path, std::int64_t shared, std::size_t prompts) const {
    if ((shared - path) * static_cast<std::int64_t>(prompts - 1) >= worth_) path = shared;
  }
  void take(std::size_t i, std::int64_t path) {
    steps_.push_back({order_[i], std::min(path, std::ssize(at(i)) - 1)});
  }

  std::span<const TokenList> prompts_;
  std::int64_t worth_;
  std::vector<std::size_t> order_;
  std::vector<PrefixStep> steps_;
};

}  // namespace detail

ESP_INLINE std::vector<PrefixStep> prefix_steps(std::span<const TokenList> prompts,
                                                std::int64_t worth) {
  return detail::PrefixWalk(prompts, worth).take();
}

ESP_INLINE std::int64_t computed_tokens(std::span<const TokenList> prompts,
                                        std::span<const PrefixStep> steps) {
  std::int64_t computed = 0, path = 0;
  TokenList before;
  for (const PrefixStep& step : steps) {
    const TokenList ids = prompts[step.prompt];
    const std::int64_t kept = std::min({path, step.path, common_prefix(before, ids)});
    computed += std::ssize(ids) - kept;
    path = step.path;
    before = ids;
  }
  return computed;
}

}  // namespace espalier::infer
#endif
