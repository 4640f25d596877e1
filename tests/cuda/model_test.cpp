// SPDX-License-Identifier: Apache-2.0
// A whole Mixtral on the device Cuda against the CPU: logits, losses, gradients,
// optimizer steps, cached continuation.
#include <espalier/cuda.hpp>
#include <espalier/models/mixtral.hpp>
#include <espalier/train/trainer.hpp>

#include "cuda/both_devices.hpp"
#include "support/tiny_mixtral.hpp"

// Here for families_test.cpp too: this is what takes long to compile.
template class espalier::Decoder<float, espalier::Cuda>;
template class espalier::Decoder<espalier::bf16, espalier::Cuda>;

using namespace espalier;
using namespace espalier::test;

namespace {

template <class T, class D>
Mixtral<T, D> with_adapter() {
  Mixtral<T, D> model(tiny_mixtral_config(), std::is_same_v<T, bf16> ? tiny_mixtral_bf16_weights()
                                                                     : tiny_mixtral_weights());
  LoraConfig lora;
  lora.r = 4;
  lora.alpha = 8;
  lora.targets = {"q", "k", "v", "o", "gate", "w1", "w2", "w3"};
  model.add_lora(lora, 0);
  const auto adapter = golden_file("adapter/adapter_model.safetensors");
  load_parameters<float>(model.parameters(), [&](const std::string& name) {
    return adapter.tensor("base_model.model." + name);
  });
  return model;
}

}  // namespace

TEMPLATE_TEST_CASE("device Cuda: logits of a Mixtral equal the CPU's", "[cuda][models]", float,
                   bf16) {
  using T = TestType;
  const auto golden = golden_file("forward.safetensors");
  const auto cpu = with_adapter<T, Cpu>();
  const auto device = with_adapter<T, Cuda>();
  const NoGrad no_grad;
  const PackedTokens tokens = golden_batch(golden).tokens;
  const auto want = cpu.logits(cpu.hidden(tokens).value());
  const auto got = device.logits(device.hidden(tokens).value());
  require_close_runs(to_vector(to<Cpu>(got)), to_vector(want), dtype_of<T>::value);
}

TEST_CASE("device Cuda: loss, auxiliary loss and every LoRA gradient equal the CPU's",
          "[cuda][models]") {
  const GoldenBatch batch = golden_batch(golden_file("forward.safetensors"));
  const TrainContext training{true, 0, 0};
  const auto run = [&](const auto& model) {
    const Objective o =
        make_objective(model.loss(batch.tokens, batch.targets, &training), 0.1, 0.05);
    backward(o.value);
    return o;
  };
  const auto cpu = with_adapter<float, Cpu>();
  const auto device = with_adapter<float, Cuda>();
  const Objective want = run(cpu), got = run(device);
  CHECK(std::abs(got.loss_sum - want.loss_sum) <= 1e-5 * want.loss_sum);
  CHECK(std::abs(got.aux - want.aux) <= 1e-5 * want.aux);
  const auto a = cpu.parameters(), b = device.parameters();
  REQUIRE(a.size() == b.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(a[i].name);
    require_close_runs(to_vector(b[i].var.grad().on_host()), to_vector(a[i].var.grad()), DType::f32,
                       256);
  }
}

TEST_CASE("device Cuda: optimizer steps with clipping follow the CPU's", "[cuda][train]") {
  const GoldenBatch golden = golden_batch(golden_file("forward.safetensors"));
  const std::vector<data::Batch> batches = {{golden.tokens, golden.targets, golden.target_count}};
  train::TrainerConfig config;
  config.schedule = {optim::schedule_named("constant"), 1e-2, 0, 3};
  config.aux_coefficient = 0.02;
  const auto cpu = with_adapter<float, Cpu>();
  const auto device = with_adapter<float, Cuda>();
  train::Trainer want(cpu, config), got(device, config);
  for (int step = 0; step < 3; ++step) {
    const auto w = want.step(batches), g = got.step(batches);
    CAPTURE(step);
    CHECK(std::abs(g.loss - w.loss) <= 1e-4 * w.loss);
    CHECK(std::abs(g.grad_norm - w.grad_norm) <= 1e-3 * w.grad_norm);
  }
}

TEST_CASE("device Cuda: a cached continuation gives the hidden states of the whole pass",
          "[cuda][models]") {
  const auto model = with_adapter<float, Cuda>();
  const std::vector<std::int32_t> ids = {1, 17, 40, 99, 3, 64, 21};
  const NoGrad no_grad;
  const auto whole = to<Cpu>(model.hidden(PackedTokens(ids)).value());
  auto cache = model.new_cache(2);
  KvCache<float, Cuda>* caches[] = {&cache};
  (void)model.hidden(PackedTokens({ids.begin(), ids.begin() + 4}), caches);
  const auto rest = to<Cpu>(model.hidden(PackedTokens({ids.begin() + 4, ids.end()}), caches));
  require_close_runs(to_vector(rest), to_vector(whole.rows(4, 7)), DType::f32);
}
