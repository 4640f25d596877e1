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

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include <espalier/espalier.hpp>

using namespace espalier;

constexpr int kVocabulary = 32, kLength = 12;

DecoderConfig small_config() {
  DecoderConfig c;  // the rest is Mixtral's
  c.hidden_size = 32;
  c.num_hidden_layers = 2;
  c.vocab_size = kVocabulary;
  c.attention.heads = 4;
  c.attention.kv_heads = 2;
  c.attention.head_dim = 8;
  c.attention.rope.theta = 1e6;
  c.mixture.experts = 4;
  c.mixture.width = 48;
  c.mixture.router.top_k = 2;
  return c;
}

// Weights by their Hugging Face names: normal, norms one. With a file: hub::Checkpoint::tensor.
AnyTensor random_weight(const std::vector<TensorPlace>& places, const std::string& name) {
  const auto place = std::find_if(places.begin(), places.end(),
                                  [&](const TensorPlace& p) { return p.name == name; });
  if (place->shape.rank() == 1) return Tensor<float>(place->shape, 1.0f);
  return normal_weight<float>(name, place->shape, 0.15f, /*seed=*/1);
}

// Counts up from `first`; every token but the first is a target.
data::Example counting(int first) {
  data::Example e;
  for (int i = 0; i < kLength; ++i) e.ids.push_back((first + i) % kVocabulary);
  e.is_target.assign(kLength, 1);
  e.is_target[0] = 0;
  return e;
}

void train_and_ask(const std::string& trace_file) {
  const DecoderConfig config = small_config();
  const std::vector<TensorPlace> places = stored_tensors(config);
  Decoder<float> model(config,
                       [&](const std::string& name) { return random_weight(places, name); });
  model.add_lora({.r = 8, .alpha = 16, .targets = {"q", "k", "v", "o", "gate", "w1", "w2", "w3"}},
                 /*seed=*/0);

  std::vector<data::Example> examples;
  for (int first = 0; first < kVocabulary; ++first) examples.push_back(counting(first));
  const data::Batch batch = data::make_batch(examples, data::one_example_per_row(examples.size()));
  const int steps = 100;
  train::Trainer trainer(
      model, {{optim::ScheduleKind::cosine, 1e-2, /*warmup=*/5, steps}, {}, /*clip=*/1.0});
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
