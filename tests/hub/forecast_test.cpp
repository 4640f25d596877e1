// SPDX-License-Identifier: Apache-2.0
// The forecast against what a step really takes from the pool.
#include <espalier/hub/forecast.hpp>
#include <espalier/models/mixtral.hpp>
#include <espalier/train/trainer.hpp>

#include "support/catch.hpp"
#include "train/tiny_model.hpp"

using namespace espalier;

TEST_CASE("forecast: bytes of a step are foreseen within a quarter", "[train][forecast]") {
  const auto targets =
      GENERATE(std::vector<std::string>{"q", "v"},
               std::vector<std::string>{"q", "k", "v", "o", "gate", "w1", "w2", "w3"});
  const LoraConfig lora = {4, 8, 0, false, targets};
  MixtralConfig sizes = test::tiny_config();
  sizes.hidden_size = 128;
  sizes.mixture.width = 256;
  sizes.attention.head_dim = 32;
  sizes.vocab_size = 1024;
  const Mixtral<float> model = test::tiny_model(lora, 1, sizes);
  train::TrainerConfig config;
  train::Trainer trainer(model, config);
  std::int64_t trainable = 0;
  for (const NamedParameter& p : model.parameters()) trainable += p.var.any().numel();
  std::vector<data::Example> examples(20);
  for (data::Example& e : examples) {
    e.ids.assign(100, 3);
    e.is_target.assign(100, 1);
  }
  const auto batch = data::make_batch(examples, data::one_example_per_row(examples.size()));
  trim_pool();
  const auto before = pool_stats();
  (void)trainer.step({batch});
  const auto after = pool_stats();
  const double got = static_cast<double>(after.in_use_bytes + after.cached_bytes) -
                     static_cast<double>(before.in_use_bytes);
  const double want =
      forecast_fine_tuning(model.config(), 0, lora, trainable, 2000).activation_bytes;
  CAPTURE(got, want);
  CHECK(want > 0.8 * got);
  CHECK(want < 1.25 * got);
}

TEST_CASE("forecast: every added target and token costs memory and time", "[train][forecast]") {
  const MixtralConfig c;  // Mixtral 8x7B
  const LoraConfig few = {8, 8, 0, false, {"q"}}, all = {8, 8, 0, false, {"q", "gate", "w1", "w2"}};
  CHECK(forecast_fine_tuning(c, 0, few, 10, 100).activation_bytes <
        forecast_fine_tuning(c, 0, all, 10, 100).activation_bytes);
  CHECK(forecast_fine_tuning(c, 0, few, 10, 100).total_bytes() <
        forecast_fine_tuning(c, 0, few, 10, 200).total_bytes());
  // 12.9e9 weights meet a token, 4 operations each for forward and backward.
  const double flops = forecast_flops_per_token(c, 0, 0);
  CHECK(flops > 4 * 12.5e9);
  CHECK(flops < 4 * 12.9e9);
  CHECK(forecast_flops_per_token(c, 0, 4096) > flops);
}
