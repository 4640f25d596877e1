// SPDX-License-Identifier: Apache-2.0
// Trains LoRA adapters on a frozen Mixtral of random weights until it counts: 5 6 7 8 ... In the
// end it goes on from 3 by itself.
//   g++ -std=c++20 -O2 -fopenmp -Iinclude examples/02_train_moe_lora.cpp -lfmt -o train && ./train
// With --trace FILE: where the time of step 50 goes, as a table on stderr and in FILE, which
// chrome://tracing and ui.perfetto.dev show.
// Expected:
//   step   1  loss 3.819
//   step  25  loss 0.597
// and so on down to 0.36 (the first number of a row tells nothing, so 0 is out of reach), then
//   3 -> 4 5 6 7 8 9
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>

#include <espalier/espalier.hpp>

using namespace espalier;

constexpr int kVocabulary = 32, kLength = 12;

MixtralConfig small_config() {
  return {.hidden_size = 32,
          .intermediate_size = 48,
          .num_hidden_layers = 2,
          .num_attention_heads = 4,
          .num_key_value_heads = 2,
          .head_dim = 8,
          .num_local_experts = 4,
          .num_experts_per_tok = 2,
          .vocab_size = kVocabulary};
}

// Weights by their Hugging Face names: normal, norms one. With a file: hub::Checkpoint::tensor.
AnyTensor random_weight(const MixtralConfig& c, const std::string& name) {
  const auto ends = [&](const char* end) { return name.ends_with(end); };
  if (ends("norm.weight")) return Tensor<float>({c.hidden_size}, 1.0f);
  const std::int64_t kv = c.attention.kv_heads * c.attention.head_dim;
  Shape shape{c.hidden_size, c.hidden_size};
  if (ends("embed_tokens.weight") || ends("lm_head.weight")) shape = {c.vocab_size, c.hidden_size};
  if (ends("k_proj.weight") || ends("v_proj.weight")) shape = {kv, c.hidden_size};
  if (ends("gate.weight")) shape = {c.mixture.experts, c.hidden_size};
  if (ends("w1.weight") || ends("w3.weight")) shape = {c.mixture.width, c.hidden_size};
  if (ends("w2.weight")) shape = {c.hidden_size, c.mixture.width};
  return normal_weight<float>(name, shape, 0.15f, /*seed=*/1);
}

// Counts up from `first`; every token but the first is a target.
train::Example counting(int first) {
  train::Example e;
  for (int i = 0; i < kLength; ++i) e.ids.push_back((first + i) % kVocabulary);
  e.is_target.assign(kLength, 1);
  e.is_target[0] = 0;
  return e;
}

void train_and_ask(const std::string& trace_file) {
  const auto weight = [](const std::string& name) { return random_weight(small_config(), name); };
  Mixtral<float> model(small_config(), weight);
  model.add_lora({.r = 8, .alpha = 16, .targets = {"q", "k", "v", "o", "gate", "w1", "w2", "w3"}},
                 /*seed=*/0);

  std::vector<train::Example> examples;
  for (int first = 0; first < kVocabulary; ++first) examples.push_back(counting(first));
  const train::Batch batch =
      train::make_batch(examples, train::one_example_per_row(examples.size()));
  const int steps = 100;
  train::Trainer trainer(
      model, {{train::ScheduleKind::cosine, 1e-2, /*warmup=*/5, steps}, {}, /*clip=*/1.0});
  for (int step = 1; step <= steps; ++step) {
    const TraceSession trace(step == 50 ? trace_file : "");
    const train::StepResult r = trainer.step({batch});
    if (step == 1 || step % 25 == 0) fmt::print("step {:3}  loss {:.3f}\n", step, r.loss);
  }

  std::vector<std::int32_t> ids = {3};
  for (int i = 0; i < 6; ++i) {
    const NoGrad no_grad;
    const Tensor<float> h = model.hidden(PackedTokens(ids)).value();
    const Tensor<float> logits = model.logits(h.rows(h.shape(0) - 1, h.shape(0)));
    const float* first = logits.data();
    ids.push_back(static_cast<std::int32_t>(std::max_element(first, first + kVocabulary) - first));
  }
  fmt::print("{} -> {}\n", ids[0], fmt::join(ids.begin() + 1, ids.end(), " "));
}

int main(int argc, char** argv) {
  try {
    std::string trace_file;
    for (int i = 1; i + 1 < argc; i += 2) {
      if (std::strcmp(argv[i], "--threads") == 0) set_num_threads(std::atoi(argv[i + 1]));
      if (std::strcmp(argv[i], "--trace") == 0) trace_file = argv[i + 1];
    }
    train_and_ask(trace_file);
  } catch (const Error& e) {
    fmt::print(stderr, "02_train_moe_lora: {}\n", e.what());
    return 1;
  }
}
