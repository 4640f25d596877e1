// SPDX-License-Identifier: Apache-2.0
// What a training step takes from the system, and what recomputing layers saves of it.
#include <espalier/train/trainer.hpp>

#include "support/catch.hpp"
#include "support/make_tensor.hpp"
#include "train/tiny_model.hpp"

using namespace espalier;

namespace {

using Model = Decoder<float>;

/// Dropout and every target, so that all that training does is done.
const LoraConfig kLora = {4, 8, 0.1, false, {"q", "k", "v", "o", "gate", "w1", "w2", "w3"}};

DecoderConfig config_of(std::int64_t layers) {
  DecoderConfig c = test::tiny_config();
  c.num_hidden_layers = layers;
  return c;
}

/// Two sequences in a micro-batch, always of the same lengths.
data::Batch batch_of(std::uint64_t seed, std::uint32_t length) {
  const Philox random(seed);
  std::vector<data::Example> examples(2);
  for (std::uint32_t e = 0; e < 2; ++e) {
    for (std::uint32_t t = 0; t < length; ++t) {
      examples[e].ids.push_back(static_cast<std::int32_t>(random.below(e * length + t, 64)));
      examples[e].is_target.push_back(t > 0);
    }
  }
  return data::make_batch(examples, data::one_example_per_row(examples.size()));
}

train::TrainerConfig trainer_config(bool recompute) {
  train::TrainerConfig c;
  c.schedule = {optim::ScheduleKind::constant, 1e-2, 0, 100};
  c.aux_coefficient = 0.1;
  c.recompute_layers = recompute;
  return c;
}

}  // namespace

TEST_CASE("training: after its first steps it takes no memory from the system", "[train][memory]") {
  const bool recompute = GENERATE(false, true);
  const int threads = GENERATE(1, 2);
  set_num_threads(threads);
  const Model model = test::tiny_model(kLora, 1, config_of(2));
  train::Trainer trainer(model, trainer_config(recompute));
  // Other tokens in every step, so that the experts' shares change; the shapes stay.
  const auto step = [&](std::uint64_t i) {
    (void)trainer.step({batch_of(2 * i, 40), batch_of(2 * i + 1, 40)});
  };
  for (std::uint64_t i = 0; i < 4; ++i) step(i);
  const PoolStats before = pool_stats();
  for (std::uint64_t i = 4; i < 24; ++i) step(i);
  const PoolStats after = pool_stats();
  set_num_threads(0);
  CAPTURE(recompute, threads, before.system_allocations);
  REQUIRE(after.system_allocations == before.system_allocations);
  REQUIRE(after.in_use_bytes == before.in_use_bytes);
}

TEST_CASE("training: recomputing layers changes no bit of loss, norm or parameters",
          "[train][memory]") {
  const Model kept = test::tiny_model(kLora, 1, config_of(3)),
              again = test::tiny_model(kLora, 1, config_of(3));
  train::Trainer a(kept, trainer_config(false)), b(again, trainer_config(true));
  for (std::uint64_t i = 0; i < 4; ++i) {
    const std::vector<data::Batch> parts = {batch_of(2 * i, 9), batch_of(2 * i + 1, 5)};
    const auto x = a.step(parts), y = b.step(parts);
    REQUIRE(x.loss == y.loss);
    REQUIRE(x.aux_loss == y.aux_loss);
    REQUIRE(x.grad_norm == y.grad_norm);
  }
  const auto p = kept.parameters(), q = again.parameters();
  REQUIRE(p.size() == q.size());
  for (std::size_t i = 0; i < p.size(); ++i) {
    INFO(p[i].name);
    REQUIRE(test::same_bits(p[i].var.any(), q[i].var.any()));
  }
}

TEST_CASE("training: with recomputed layers a further layer costs little memory",
          "[train][memory]") {
  const auto peak = [&](std::int64_t layers, bool recompute) {
    const Model model = test::tiny_model(kLora, 1, config_of(layers));
    train::Trainer trainer(model, trainer_config(recompute));
    const std::vector<data::Batch> parts = {batch_of(1, 60)};
    reset_pool_peak();
    const std::size_t before = pool_stats().in_use_bytes;
    (void)trainer.step(parts);
    return static_cast<double>(pool_stats().peak_bytes - before);
  };
  const double kept = peak(10, false) - peak(5, false);
  const double recomputed = peak(10, true) - peak(5, true);
  CAPTURE(kept, recomputed);
  REQUIRE(recomputed <= 0.25 * kept);
}
