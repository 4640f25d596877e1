// SPDX-License-Identifier: Apache-2.0
#include <limits>
#include <numeric>

#include <espalier/train/trainer.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/make_tensor.hpp"
#include "train/tiny_model.hpp"

using namespace espalier;
using data::Batch;
using data::Example;

namespace {

using Model = Decoder<float>;
const LoraConfig kEverything = {4, 8, 0, false, {"q", "k", "v", "o", "gate", "w1", "w2", "w3"}};

/// Sequences of different lengths, some with a part that is not trained on.
std::vector<Example> make_examples(std::size_t count) {
  std::vector<Example> out(count);
  const Philox random(17);
  for (std::size_t i = 0; i < count; ++i) {
    const std::uint32_t length = 3 + random.below(1000 + i, 9), untrained = 1 + i % 3;
    for (std::uint32_t t = 0; t < length; ++t) {
      out[i].ids.push_back(static_cast<std::int32_t>(random.below(64 * i + t, 64)));
      out[i].is_target.push_back(t >= untrained ? 1 : 0);
    }
    out[i].is_target.back() = 1;
  }
  return out;
}

std::vector<Batch> batches(const std::vector<Example>& examples, std::int64_t batch_size) {
  data::Sampler sampler(static_cast<std::int64_t>(examples.size()),
                        {batch_size, 1 << 20, false, 0});
  std::vector<Batch> out;
  for (const auto& numbers : sampler.micro_batches(0)) {
    std::vector<data::Row> rows;
    for (const std::int64_t i : numbers) rows.push_back({i});
    out.push_back(data::make_batch(examples, rows));
  }
  return out;
}

train::TrainerConfig config(double lr = 1e-2) {
  train::TrainerConfig c;
  c.schedule = {optim::ScheduleKind::constant, lr, 0, 100};
  return c;
}

std::vector<double> values(const Model& model) {
  std::vector<double> all;
  for (const NamedParameter& p : model.parameters()) {
    const auto v = test::to_vector(p.var.any());
    all.insert(all.end(), v.begin(), v.end());
  }
  return all;
}

}  // namespace

TEST_CASE("trainer: eight micro-batches of one equal one of eight", "[train][trainer]") {
  const auto examples = make_examples(8);
  // Weight decay 0 and plain steps: what differs is rounding alone.
  const Model one = test::tiny_model(kEverything), many = test::tiny_model(kEverything);
  train::Trainer whole(one, config()), cut(many, config());
  for (int s = 0; s < 3; ++s) {
    const auto a = whole.step(batches(examples, 8)), b = cut.step(batches(examples, 1));
    CAPTURE(s);
    CHECK(a.targets == b.targets);
    CHECK(a.tokens == b.tokens);
    CHECK(std::abs(a.loss - b.loss) <= 1e-5 * a.loss);
    CHECK(std::abs(a.grad_norm - b.grad_norm) <= 1e-4 * a.grad_norm);
  }
}

TEST_CASE("trainer: the loss is the mean over targets, not over micro-batches",
          "[train][trainer]") {
  auto examples = make_examples(2);
  examples[1].is_target.assign(examples[1].ids.size(), 0);
  examples[1].is_target.back() = 1;  // one target here, several in the other
  const Model model = test::tiny_model(kEverything);
  const auto parts = batches(examples, 1);
  double sum = 0;
  std::vector<double> means;
  std::int64_t targets = 0;
  {
    const NoGrad no_grad;
    for (const Batch& b : parts) {
      const double part = model.loss(b.tokens, b.targets).loss_sum.value()[0];
      sum += part;
      targets += b.target_count;
      means.push_back(part / static_cast<double>(b.target_count));
    }
  }
  train::Trainer trainer(model, config());
  const double loss = trainer.step(parts).loss, want = sum / static_cast<double>(targets);
  CHECK(std::abs(loss - want) <= 1e-6 * want);
  CHECK(std::abs(loss - (means[0] + means[1]) / 2) > 1e-3);
}

TEST_CASE("trainer: packing into one row changes neither loss nor gradient", "[train][trainer]") {
  const auto examples = make_examples(6);
  const Model a = test::tiny_model(kEverything), b = test::tiny_model(kEverything);
  train::Trainer apart(a, config()), packed(b, config());
  data::Row row(examples.size());
  std::iota(row.begin(), row.end(), std::int64_t{0});
  const auto x = apart.step(batches(examples, 1));
  const auto y = packed.step({data::make_batch(examples, {row})});
  CHECK(std::abs(x.loss - y.loss) <= 1e-5 * x.loss);
  CHECK(std::abs(x.grad_norm - y.grad_norm) <= 1e-4 * x.grad_norm);
}

TEST_CASE("trainer: the auxiliary loss is a mean over micro-batches and acts by its coefficient",
          "[train][trainer]") {
  const auto parts = batches(make_examples(4), 2);
  const Model plain = test::tiny_model(kEverything), balanced = test::tiny_model(kEverything);
  double want = 0;
  for (const Batch& b : parts) {
    const TrainContext context{true, 0, 0};
    want += plain.loss(b.tokens, b.targets, &context).aux.value()[0] / 2;
  }
  auto with_aux = config();
  with_aux.aux_coefficient = 0.5;
  train::Trainer off(plain, config()), on(balanced, with_aux);
  const auto a = off.step(parts), b = on.step(parts);
  CHECK(std::abs(a.aux_loss - want) <= 1e-6 * want);
  CHECK(a.aux_loss == b.aux_loss);
  CHECK(a.loss == b.loss);  // the logged loss is without it
  CHECK(a.grad_norm != b.grad_norm);
}

TEST_CASE("trainer: a few steps on one batch learn it", "[train][trainer]") {
  const auto parts = batches(make_examples(2), 2);
  const Model model = test::tiny_model(kEverything);
  train::Trainer trainer(model, config(2e-2));
  const double first = trainer.step(parts).loss;
  double last = first;
  for (int s = 0; s < 60; ++s) last = trainer.step(parts).loss;
  CHECK(last < 0.2 * first);
  CHECK(trainer.evaluate(parts) < 0.2 * first);
}

TEST_CASE("trainer: taken up after any step, a run has the bits of an uninterrupted one",
          "[train][trainer]") {
  LoraConfig lora = kEverything;
  lora.dropout = 0.2;  // its masks must not depend on what ran before
  const auto examples = make_examples(7);
  auto c = config();
  c.adamw.weight_decay = 0.1;
  c.aux_coefficient = 0.01;
  c.seed = 5;
  data::Sampler sampler(7, {2, 2, true, 5});
  const auto step_batches = [&](std::int64_t step) {
    std::vector<Batch> out;
    for (const auto& numbers : sampler.micro_batches(step)) {
      std::vector<data::Row> rows;
      for (const std::int64_t i : numbers) rows.push_back({i});
      out.push_back(data::make_batch(examples, rows));
    }
    return out;
  };
  const Model straight = test::tiny_model(lora);
  train::Trainer whole(straight, c);
  std::vector<double> losses;
  std::unordered_map<std::string, AnyTensor> weights, moments;
  for (std::int64_t s = 0; s < 9; ++s) {
    if (s == 4) {
      for (const auto& p : straight.parameters()) weights[p.name] = p.var.any().clone();
      for (const auto& [name, t] : whole.optimizer().state()) moments[name] = t.clone();
    }
    losses.push_back(whole.step(step_batches(s)).loss);
  }
  const Model resumed = test::tiny_model(lora, 1);
  load_parameters<float>(resumed.parameters(),
                         [&](const std::string& name) { return weights.at(name); });
  train::Trainer rest(resumed, c);
  rest.optimizer().restore(4, moments);
  for (std::int64_t s = 4; s < 9; ++s) {
    const auto r = rest.step(step_batches(s));
    CHECK(r.step == s + 1);
    CHECK(r.loss == losses[static_cast<std::size_t>(s)]);
  }
  CHECK(values(resumed) == values(straight));
}

TEST_CASE("trainer: results are the same bits for any number of threads", "[train][trainer]") {
  const auto parts = batches(make_examples(4), 2);
  const int before = num_threads();
  std::vector<std::vector<double>> results;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    const Model model = test::tiny_model(kEverything);
    train::Trainer trainer(model, config());
    for (int s = 0; s < 2; ++s) (void)trainer.step(parts);
    results.push_back(values(model));
  }
  set_num_threads(before);
  CHECK(results[0] == results[1]);
  CHECK(results[0] == results[2]);
}

TEST_CASE("trainer: dropout acts in training and not in evaluation", "[train][trainer]") {
  LoraConfig lora = kEverything;
  lora.dropout = 0.5;
  const auto parts = batches(make_examples(3), 3);
  const Model dropped = test::tiny_model(lora), plain = test::tiny_model(kEverything);
  train::Trainer with(dropped, config()), without(plain, config());
  // B is zero at first: only the gradients see the masks.
  const auto a = with.step(parts), b = without.step(parts);
  CHECK(a.loss == b.loss);
  CHECK(a.grad_norm != b.grad_norm);
  CHECK(with.evaluate(parts) == with.evaluate(parts));
}

TEST_CASE("trainer: a loss that is not finite stops before anything is updated",
          "[train][trainer]") {
  const auto parts = batches(make_examples(2), 2);
  const Model model = test::tiny_model(kEverything);
  train::Trainer trainer(model, config());
  (void)trainer.step(parts);
  const AnyVar first = model.parameters().front().var;
  Tensor<float>(first.any())[0] = std::numeric_limits<float>::quiet_NaN();
  const auto moments = trainer.optimizer().state()[0].second.clone();
  CHECK_THROWS_WITH(trainer.step(parts), Catch::Contains("step 2: the loss is nan"));
  CHECK_THROWS_AS(trainer.step(parts), train::DivergedError);
  CHECK(trainer.optimizer().steps() == 1);
  CHECK(test::same_bits(moments, trainer.optimizer().state()[0].second));
  CHECK_THROWS_WITH(trainer.step(parts), Catch::Contains("Lower the learning rate"));
  // Before the first update no learning rate can have done it.
  train::Trainer fresh(model, config());
  CHECK_THROWS_WITH(fresh.step(parts),
                    Catch::Contains("step 1: the loss is nan before the first update") &&
                        Catch::Contains("weights or the data") &&
                        !Catch::Contains("Lower the learning rate"));
}

TEST_CASE("trainer: without anything to train it says so", "[train][trainer]") {
  const Model model = test::tiny_model({4, 8, 0, false, {}});
  CHECK_THROWS_WITH(train::Trainer(model, config()), Catch::Contains("no trainable"));
}
