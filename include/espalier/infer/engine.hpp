// SPDX-License-Identifier: Apache-2.0
// Runs a decoder as a LanguageModel. Prefixes that several contexts or prompts share are computed
// once (prefix_steps.hpp). Scoring computes each distinct context once and continues its choices
// from the KV cache. A forward pass packs several sequences; the output head computes only rows
// that predict a scored token. Generation decodes up to `batch` sequences with continuous batching:
// a new sequence takes the place of a finished one at once. Rows of a pass are independent, so no
// result depends on other sequences.
#pragma once

#ifdef __CUDACC__
#error "espalier/infer/engine.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <deque>
#include <numeric>

#include <espalier/infer/language_model.hpp>
#include <espalier/infer/prefix_steps.hpp>
#include <espalier/infer/sampling.hpp>
#include <espalier/infer/stopped_text.hpp>
#include <espalier/models/decoder.hpp>

namespace espalier::infer {

struct EngineOptions {
  std::int64_t batch = 16;                    // sequences decoded together
  std::int64_t pass_tokens = 2048;            // of one forward pass, unless one sequence is longer
  std::vector<std::int32_t> end_tokens = {};  // besides those of the model and the tokenizer
};

/// The segments of one forward pass, each with its cache.
template <FloatElement T, Device D = Cpu>
struct Pass {
  PackedTokens tokens;
  std::vector<KvCache<T, D>*> caches;

  Pass() { tokens.segments = {0}; }
  std::int64_t size() const { return static_cast<std::int64_t>(tokens.ids.size()); }
  void add(std::span<const std::int32_t> ids, KvCache<T, D>& cache) {
    tokens.ids.insert(tokens.ids.end(), ids.begin(), ids.end());
    tokens.segments.push_back(size());
    caches.push_back(&cache);
  }
};

template <FloatElement T, Device D = Cpu>
class DecoderEngine final : public LanguageModel {
 public:
  DecoderEngine(Decoder<T, D> model, text::Tokenizer tokenizer, EngineOptions options = {})
      : model_(std::move(model)), tokenizer_(std::move(tokenizer)), options_(options) {
    end_ = model_.config().eos_token_ids;
    if (const auto eos = tokenizer_.eos_id()) end_.push_back(*eos);
    end_.insert(end_.end(), options_.end_tokens.begin(), options_.end_tokens.end());
  }

  std::vector<Likelihood> score(std::span<const Continuation> items) override {
    const auto [contexts, members] = distinct_contexts(items);
    check(contexts);
    std::vector<Likelihood> results(items.size());
    Group group;
    for (const PrefixStep& step : prefix_steps(contexts)) {
      const std::int64_t path = follow(contexts[step.prompt], step.path);
      for (const std::size_t item : members[step.prompt]) {
        const auto size = std::ssize(items[item].continuation);
        bool there = group.holds(contexts[step.prompt]);
        const std::int64_t more = there ? size : size + std::ssize(contexts[step.prompt]) - path;
        // A copy of the path is memory: no more of them than of sequences decoded together.
        const bool copies = !there && path > 0 && std::ssize(group.contexts) >= options_.batch;
        if (copies || (group.tokens > 0 && group.tokens + more > options_.pass_tokens)) {
          score_group(items, group, results);
          group = {};
          there = false;
        }
        if (!there) group.add(contexts[step.prompt], path_.cache, path, size);
        group.members.push_back({item, group.contexts.size() - 1});
        group.tokens += size;
      }
    }
    if (!group.members.empty()) score_group(items, group, results);
    return results;
  }

  void generate(std::span<const std::vector<std::int32_t>> prompts, int max_new_tokens,
                std::span<const std::string> stop, const OnDone& on_done) override {
    const std::vector<TokenList> lists(prompts.begin(), prompts.end());
    check(lists);
    const std::vector<PrefixStep> steps = prefix_steps(lists);
    std::span<const PrefixStep> waiting(steps);
    std::vector<Active> active;
    active.reserve(static_cast<std::size_t>(options_.batch));
    while (!waiting.empty() || !active.empty()) {
      admit(lists, stop, waiting, active);
      Pass<T, D> pass;
      for (Active& a : active) pass.add(a.fresh, a.cache);
      const std::vector<std::int32_t> next = most_likely(pass);
      for (std::size_t i = active.size(); i-- > 0;) {
        if (!advance(active[i], next[i], max_new_tokens)) continue;
        on_done(active[i].prompt, std::move(active[i].completion));
        active.erase(active.begin() + static_cast<std::ptrdiff_t>(i));
      }
    }
  }

 private:
  struct Member {
    std::size_t item, context;
  };
  struct Context {
    TokenList ids;
    std::int64_t path;  // tokens that its cache held before
    KvCache<T, D> cache;
  };
  /// What one pass scores.
  struct Group {
    std::deque<Context> contexts;
    std::vector<Member> members;  // in the order of their contexts
    std::int64_t tokens = 0;

    bool holds(TokenList ids) const {
      return !contexts.empty() && contexts.back().ids.data() == ids.data();
    }
    void add(TokenList ids, const KvCache<T, D>& path, std::int64_t length, std::int64_t more) {
      contexts.push_back({ids, length, path.clone(length, std::ssize(ids) + more)});
      tokens += std::ssize(ids) - length;
    }
  };
  /// Locates the hidden states of a member: row `first` of the first pass, then rows from `rest` on
  /// of the second pass (-1: all rows are in the first pass).
  struct Rows {
    std::int64_t first, rest;
  };
  struct Active {
    std::size_t prompt;
    KvCache<T, D> cache;
    std::vector<std::int32_t> fresh;  // tokens that the cache lacks
    StoppedText text;
    Completion completion;
  };

  Tensor<T, D> run(const Pass<T, D>& pass) const {
    Tensor<T, D> hidden = model_.hidden(pass.tokens, pass.caches);
    if (on_pass) on_pass(pass.size());
    return hidden;
  }
  void check_ids(std::span<const std::int32_t> ids) const {
    tokenizer_.require_within(ids, model_.config().vocab_size);
  }
  void check(std::span<const TokenList> prompts) const {
    for (const TokenList ids : prompts) {
      ESP_REQUIRE(!ids.empty(), FormatError, "a prompt without tokens");
      check_ids(ids);
    }
  }

  /// The contexts of all items, each once, and the items of each.
  static std::pair<std::vector<TokenList>, std::vector<std::vector<std::size_t>>> distinct_contexts(
      std::span<const Continuation> items) {
    std::vector<std::size_t> order(items.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
      return items[a].context < items[b].context;
    });
    std::vector<TokenList> contexts;
    std::vector<std::vector<std::size_t>> members;
    for (std::size_t i = 0; i < order.size(); ++i) {
      const auto& context = items[order[i]].context;
      if (i == 0 || context != items[order[i - 1]].context) {
        contexts.emplace_back(context);
        members.emplace_back();
      }
      members.back().push_back(order[i]);
    }
    return {std::move(contexts), std::move(members)};
  }

  /// Runs each context with its first continuation; the other continuations start from a copy of
  /// its KV cache. The last token of a continuation is not run: no score depends on it.
  void score_group(std::span<const Continuation> items, Group& group,
                   std::vector<Likelihood>& results) const {
    std::deque<KvCache<T, D>> copies;
    Pass<T, D> first, rest;
    std::vector<std::int64_t> last_rows;  // of each context, in the first pass
    for (const Member& m : group.members) {
      const Continuation& item = items[m.item];
      check_ids(item.continuation);
      if (m.context < last_rows.size()) continue;
      Context& context = group.contexts[m.context];
      const TokenList own = context.ids.subspan(static_cast<std::size_t>(context.path));
      std::vector<std::int32_t> ids(own.begin(), own.end());
      last_rows.push_back(first.size() + std::ssize(ids) - 1);
      if (!item.continuation.empty()) {
        ids.insert(ids.end(), item.continuation.begin(), item.continuation.end() - 1);
      }
      first.add(ids, context.cache);
    }
    const Tensor<T, D> h = run(first);
    std::vector<Rows> rows;
    for (std::size_t i = 0; i < group.members.size(); ++i) {
      const auto& [item, context] = group.members[i];
      const std::span<const std::int32_t> ids(items[item].continuation);
      const bool rides = i == 0 || group.members[i - 1].context != context;
      rows.push_back({last_rows[context], rides ? -1 : rest.size()});
      if (rides || ids.size() < 2) continue;
      const std::int64_t length = std::ssize(items[item].context);
      copies.push_back(group.contexts[context].cache.clone(length, length + std::ssize(ids)));
      rest.add(ids.first(ids.size() - 1), copies.back());
    }
    judge(items, group, rows, h, rest.size() > 0 ? run(rest) : Tensor<T, D>(), results);
  }

  void judge(std::span<const Continuation> items, const Group& group, const std::vector<Rows>& rows,
             const Tensor<T, D>& first, const Tensor<T, D>& rest,
             std::vector<Likelihood>& results) const {
    std::int64_t count = 0;
    for (const Member& m : group.members) count += std::ssize(items[m.item].continuation);
    if (count == 0) return;
    const std::int64_t h = model_.config().hidden_size;
    const Tensor<T, D> hidden(Shape{count, h});
    Tensor<std::int32_t> targets(Shape{count});
    std::int64_t row = 0;
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto& ids = items[group.members[i].item].continuation;
      for (std::int64_t k = 0; k < std::ssize(ids); ++k, ++row) {
        const bool in_first = k == 0 || rows[i].rest < 0;
        const T* from = in_first ? first.data() + (rows[i].first + k) * h
                                 : rest.data() + (rows[i].rest + k - 1) * h;
        copy_row(from, h, hidden.data() + row * h);
        targets[row] = ids[static_cast<std::size_t>(k)];
      }
    }
    const auto found = model_.log_probs(hidden, targets);
    row = 0;
    for (const Member& m : group.members) {
      Likelihood& result = results[m.item];
      for (std::size_t i = 0; i < items[m.item].continuation.size(); ++i, ++row) {
        result.log_prob += static_cast<double>(found.log_prob[row]);
        result.greedy = result.greedy && found.argmax[row] == targets[row];
      }
      require_finite_output(std::span<const double>(&result.log_prob, 1));
    }
  }

  /// The tokens that the next prompts share, computed. It stays from call to call: the next
  /// questions of a task have its worked examples.
  struct Path {
    KvCache<T, D> cache;
    std::vector<std::int32_t> ids;  // what the cache holds
  };
  /// Makes the path the first `length` tokens of a prompt, or more of them where it has more.
  /// Returns how many.
  std::int64_t follow(TokenList ids, std::int64_t length) {
    const std::int64_t kept =
        std::min({path_.cache.length(), common_prefix(path_.ids, ids), std::ssize(ids) - 1});
    length = std::max(length, kept);
    path_.cache.truncate(kept);
    path_.ids.resize(static_cast<std::size_t>(kept));  // also if the rest fails
    const TokenList more =
        ids.subspan(static_cast<std::size_t>(kept), static_cast<std::size_t>(length - kept));
    fill(path_.cache, more);
    path_.ids.insert(path_.ids.end(), more.begin(), more.end());
    return length;
  }
  void fill(KvCache<T, D>& cache, std::span<const std::int32_t> ids) const {
    const auto step = static_cast<std::size_t>(options_.pass_tokens);
    for (std::size_t at = 0; at < ids.size(); at += step) {
      Pass<T, D> pass;
      pass.add(ids.subspan(at, std::min(step, ids.size() - at)), cache);
      (void)run(pass);
    }
  }

  void admit(std::span<const TokenList> prompts, std::span<const std::string> stop,
             std::span<const PrefixStep>& waiting, std::vector<Active>& active) {
    std::int64_t tokens = static_cast<std::int64_t>(active.size());
    while (!waiting.empty() && std::ssize(active) < options_.batch &&
           (tokens < options_.pass_tokens || active.empty())) {
      const PrefixStep step = waiting.front();
      waiting = waiting.subspan(1);
      const TokenList ids = prompts[step.prompt];
      const std::int64_t path = follow(ids, step.path);
      KvCache<T, D> cache = path_.cache.clone(path, std::ssize(ids) + kFirstRoom);
      TokenList own = ids.subspan(static_cast<std::size_t>(path));
      // A long remainder gets passes of its own, except for its last token.
      if (std::ssize(own) > options_.pass_tokens) {
        fill(cache, own.first(own.size() - 1));
        own = own.last(1);
      }
      tokens += std::ssize(own);
      active.push_back({step.prompt,
                        std::move(cache),
                        {own.begin(), own.end()},
                        StoppedText(tokenizer_, ids, stop),
                        Completion{}});
    }
  }

  static void copy_row(const T* from, std::int64_t width, T* to) {
    memory_of<D>().copy(reinterpret_cast<std::byte*>(to), reinterpret_cast<const std::byte*>(from),
                        static_cast<std::size_t>(width) * sizeof(T));
  }

  std::vector<std::int32_t> most_likely(const Pass<T, D>& pass) const {
    const Tensor<T, D> hidden = run(pass);
    const std::int64_t h = hidden.shape()[1];
    const auto count = static_cast<std::int64_t>(pass.caches.size());
    const Tensor<T, D> last(Shape{count, h});
    for (std::int64_t s = 0; s < count; ++s) {
      const std::int64_t row = pass.tokens.segments[static_cast<std::size_t>(s) + 1] - 1;
      copy_row(hidden.data() + row * h, h, last.data() + s * h);
    }
    const Tensor<acc_t<T>> logits(model_.logits(last).on_host());
    const std::int64_t v = logits.shape()[1];
    std::vector<std::int32_t> next;
    for (std::int64_t s = 0; s < count; ++s) {
      next.push_back(infer::most_likely(
          std::span<const acc_t<T>>(logits.data() + s * v, static_cast<std::size_t>(v))));
    }
    return next;
  }

  /// Appends the next token; returns true when the sequence is finished.
  bool advance(Active& a, std::int32_t id, int max_new_tokens) const {
    const bool end = std::find(end_.begin(), end_.end(), id) != end_.end();
    bool done = end;
    if (!end) {
      a.completion.ids.push_back(id);
      a.fresh = {id};
      done = a.text.push(id);
      if (!done && std::ssize(a.completion.ids) >= max_new_tokens) {
        a.completion.hit_limit = true;
        done = true;
      }
    }
    if (!done) return false;
    a.text.finish();
    a.completion.text = std::move(a.text.text());
    return true;
  }

  static constexpr std::int64_t kFirstRoom = 256;  // new tokens before a cache has to grow

  Decoder<T, D> model_;
  text::Tokenizer tokenizer_;
  EngineOptions options_;
  std::vector<std::int32_t> end_;
  Path path_{model_.new_cache(1), {}};
};

}  // namespace espalier::infer
