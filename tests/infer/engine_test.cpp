// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <espalier/infer/engine.hpp>

#include <espalier/core/random.hpp>
#include <espalier/hub/load_model.hpp>

#include "support/catch.hpp"

namespace espalier::infer {
namespace {

using Ids = std::vector<std::int32_t>;

/// The golden model with its tokenizer.
struct Tiny {
  std::string folder = ESPALIER_TESTS_DIR "/golden/tiny_mixtral/model";
  hub::Checkpoint checkpoint{folder};
  Decoder<float> model = hub::load_model(checkpoint);
  text::Tokenizer tokenizer = text::Tokenizer::load(folder);

  DecoderEngine<float> engine(std::int64_t batch = 16, std::int64_t pass_tokens = 2048) const {
    return DecoderEngine<float>(model, tokenizer, {batch, pass_tokens});
  }
};

Ids random_ids(std::uint64_t stream, std::size_t count) {
  const Philox random(7, stream);
  Ids ids;
  for (std::size_t i = 0; i < count; ++i) {
    ids.push_back(static_cast<std::int32_t>(3 + random.below(i, 120)));
  }
  return ids;
}

/// log p of a continuation from one plain forward pass over everything.
Likelihood plain_score(const Decoder<float>& model, const Continuation& item) {
  Ids all = item.context;
  all.insert(all.end(), item.continuation.begin(), item.continuation.end());
  const NoGrad no_grad;
  const auto size = static_cast<std::int64_t>(all.size());
  const auto logits = model.logits(model.hidden(PackedTokens(all, {0, size})).value());
  const std::int64_t v = logits.shape()[1];
  Likelihood result;
  for (std::size_t i = 0; i < item.continuation.size(); ++i) {
    const float* row = logits.data() + static_cast<std::int64_t>(item.context.size() + i - 1) * v;
    double sum = 0;
    for (std::int64_t k = 0; k < v; ++k) sum += std::exp(static_cast<double>(row[k]));
    result.log_prob += static_cast<double>(row[item.continuation[i]]) - std::log(sum);
    result.greedy &= std::max_element(row, row + v) - row == item.continuation[i];
  }
  return result;
}

std::vector<Continuation> mixed_items() {
  std::vector<Continuation> items;
  for (std::uint64_t q = 0; q < 9; ++q) {
    const Ids context = random_ids(q, 1 + q * 5);
    for (std::uint64_t choice = 0; choice < 1 + q % 4; ++choice) {
      items.push_back({context, random_ids(100 + 10 * q + choice, choice + q % 3)});
    }
  }
  return items;
}

TEST_CASE("Scores equal those of one plain forward pass per text", "[infer]") {
  const Tiny tiny;
  const auto items = mixed_items();
  const auto found = tiny.engine().score(items);
  REQUIRE(found.size() == items.size());
  for (std::size_t i = 0; i < items.size(); ++i) {
    const Likelihood want = plain_score(tiny.model, items[i]);
    CAPTURE(i, found[i].log_prob, want.log_prob);
    CHECK(std::abs(found[i].log_prob - want.log_prob) <= 2e-5 * (1 + std::abs(want.log_prob)));
    CHECK(found[i].greedy == want.greedy);
  }
}

TEST_CASE("Scores have the same bits in any batch, order and pass size", "[infer]") {
  const Tiny tiny;
  auto items = mixed_items();
  const auto together = tiny.engine().score(items);
  for (std::size_t i = 0; i < items.size(); ++i) {
    CAPTURE(i);
    CHECK(tiny.engine().score(std::span(items).subspan(i, 1))[0].log_prob == together[i].log_prob);
  }
  const auto small_passes = tiny.engine(16, 20).score(items);
  std::reverse(items.begin(), items.end());
  const auto reversed = tiny.engine().score(items);
  for (std::size_t i = 0; i < items.size(); ++i) {
    CHECK(small_passes[i].log_prob == together[i].log_prob);
    CHECK(reversed[items.size() - 1 - i].log_prob == together[i].log_prob);
  }
}

TEST_CASE("A greedy continuation is found greedy, and no other", "[infer]") {
  const Tiny tiny;
  Ids context = random_ids(3, 12);
  const std::vector<Ids> prompts = {context};
  Ids greedy;
  tiny.engine().generate(prompts, 4, {}, [&](std::size_t, const Completion& c) { greedy = c.ids; });
  REQUIRE(greedy.size() == 4);
  Ids other = greedy;
  other[2] = other[2] == 50 ? 51 : 50;
  const std::vector<Continuation> items = {{context, greedy}, {context, other}};
  const auto found = tiny.engine().score(items);
  CHECK(found[0].greedy);
  CHECK_FALSE(found[1].greedy);
}

/// Greedy decoding by whole forward passes.
Ids plain_greedy(const Decoder<float>& model, Ids ids, int count) {
  const NoGrad no_grad;
  Ids out;
  for (int i = 0; i < count; ++i) {
    const auto size = static_cast<std::int64_t>(ids.size());
    const auto logits = model.logits(model.hidden(PackedTokens(ids, {0, size})).value());
    const std::int64_t v = logits.shape()[1];
    const float* row = logits.data() + (size - 1) * v;
    const auto next = static_cast<std::int32_t>(std::max_element(row, row + v) - row);
    const auto& end = model.config().eos_token_ids;
    if (std::find(end.begin(), end.end(), next) != end.end()) break;
    out.push_back(next);
    ids.push_back(next);
  }
  return out;
}

TEST_CASE("Generation with a shared prefix in a changing batch equals plain decoding", "[infer]") {
  const Tiny tiny;
  const Ids prefix = random_ids(1, 20);
  std::vector<Ids> prompts;
  for (std::uint64_t i = 0; i < 7; ++i) {
    prompts.push_back(prefix);
    const Ids own = random_ids(20 + i, 1 + 3 * i);
    prompts.back().insert(prompts.back().end(), own.begin(), own.end());
  }
  for (const std::int64_t batch : {1, 3, 16}) {
    for (const std::int64_t pass_tokens : {8, 2048}) {
      std::vector<int> calls(prompts.size(), 0);
      tiny.engine(batch, pass_tokens)
          .generate(prompts, 12, {}, [&](std::size_t i, const Completion& c) {
            CAPTURE(batch, pass_tokens, i);
            ++calls[i];
            const Ids want = plain_greedy(tiny.model, prompts[i], 12);
            CHECK(c.ids == want);
            CHECK(c.hit_limit == (want.size() == 12));
          });
      CHECK(calls == std::vector<int>(prompts.size(), 1));
    }
  }
}

TEST_CASE("What the last call computed of a shared beginning stays for the next", "[infer]") {
  const Tiny tiny;
  auto engine = tiny.engine(3, 2048);
  std::int64_t tokens = 0;
  engine.on_pass = [&](std::int64_t n) { tokens += n; };
  const Ids shots = random_ids(1, 90);
  const auto question = [&](std::uint64_t i) {
    Ids ids = shots;
    const Ids own = random_ids(20 + i, 3);
    ids.insert(ids.end(), own.begin(), own.end());
    return ids;
  };
  const auto score = [&](const std::vector<Continuation>& items) {
    tokens = 0;
    const auto found = engine.score(items);
    for (std::size_t i = 0; i < items.size(); ++i) {
      CHECK_THAT(found[i].log_prob,
                 Catch::WithinAbs(plain_score(tiny.model, items[i]).log_prob, 1e-5));
    }
    return tokens;
  };
  CHECK(score({{question(0), {3}}, {question(1), {4}}}) == 90 + 3 + 3);
  CHECK(score({{question(2), {3}}, {question(3), {5}}}) == 3 + 3);
  CHECK(score({{random_ids(99, 10), {3}}}) == 10);
  CHECK(score({{question(4), {3}}}) == 93);
}

TEST_CASE("Prompts compute no more than their steps say, whatever shares prefixes with what",
          "[infer]") {
  const Tiny tiny;
  const Ids shots = random_ids(1, 90);
  std::vector<Ids> prompts;
  for (std::uint64_t i = 0; i < 12; ++i) {
    const std::size_t shared = i < 2 ? 5 : i < 6 ? 40 : 90;
    prompts.emplace_back(shots.begin(), shots.begin() + static_cast<std::ptrdiff_t>(shared));
    const Ids own = random_ids(20 + i, i % 4);
    prompts.back().insert(prompts.back().end(), own.begin(), own.end());
  }
  const std::vector<TokenList> lists(prompts.begin(), prompts.end());
  const std::int64_t planned = computed_tokens(lists, prefix_steps(lists));
  CHECK(planned < 200);
  std::vector<Ids> texts(prompts.size());
  for (const std::int64_t pass_tokens : {8, 2048}) {
    auto engine = tiny.engine(3, pass_tokens);
    std::int64_t tokens = 0;
    engine.on_pass = [&](std::int64_t n) { tokens += n; };
    engine.generate(prompts, 1, {}, [&](std::size_t i, const Completion& c) { texts[i] = c.ids; });
    CHECK(tokens <= planned);
    std::vector<Continuation> items;
    for (const Ids& p : prompts) items.push_back({p, {3}});
    tokens = 0;
    const auto scores = engine.score(items);
    CHECK(tokens <= planned);
    for (std::size_t i = 0; i < prompts.size(); ++i) {
      CHECK(texts[i] == plain_greedy(tiny.model, prompts[i], 1));
      CHECK_THAT(scores[i].log_prob,
                 Catch::WithinAbs(plain_score(tiny.model, items[i]).log_prob, 1e-5));
    }
  }
}

TEST_CASE("The text of a completion ends before the first stop string", "[infer]") {
  const Tiny tiny;
  const std::vector<Ids> prompts = {random_ids(5, 9)};
  Completion whole, cut;
  tiny.engine().generate(prompts, 24, {}, [&](std::size_t, const Completion& c) { whole = c; });
  REQUIRE(whole.text.size() > 8);
  const std::vector<std::string> stop = {"never to be found", whole.text.substr(4, 3)};
  tiny.engine().generate(prompts, 24, stop, [&](std::size_t, const Completion& c) { cut = c; });
  CHECK(cut.text == whole.text.substr(0, whole.text.find(stop[1])));
  CHECK_FALSE(cut.hit_limit);
  CHECK(cut.ids.size() < whole.ids.size());
}

TEST_CASE("A stop string is found across tokens", "[infer]") {
  const Tiny tiny;
  const Ids ids = tiny.tokenizer.encode("the answer stops here", false);
  REQUIRE(ids.size() > 4);
  const Ids prompt = tiny.tokenizer.encode("and", true);
  const std::vector<std::string> stop = {"er st"};
  StoppedText text(tiny.tokenizer, prompt, stop);
  bool stopped = false;
  for (const std::int32_t id : ids) stopped = stopped || text.push(id);
  text.finish();
  CHECK(stopped);
  CHECK(text.text().ends_with("the answ"));
}

TEST_CASE("Token ids beyond the model's vocabulary are refused", "[infer]") {
  const Tiny tiny;
  const std::vector<Continuation> items = {{{1, 2}, {500}}};
  CHECK_THROWS_AS(tiny.engine().score(items), FormatError);
  const std::vector<Ids> prompts = {{1, -4}};
  CHECK_THROWS_AS(tiny.engine().generate(prompts, 2, {}, [](std::size_t, const Completion&) {}),
                  FormatError);
}

}  // namespace
}  // namespace espalier::infer
