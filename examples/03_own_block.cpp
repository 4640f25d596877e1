// SPDX-License-Identifier: Apache-2.0
// A transformer of your own: one block of attention and a mixture of experts, built from modules
// and trained from random weights to repeat what stood four tokens before. Its router keeps the
// softmax over all experts as it is (OLMoE's rule), and its auxiliary loss has a z-loss in it.
//   g++ -std=c++20 -O2 -fopenmp -Iinclude examples/03_own_block.cpp -lfmt -o block && ./block
// Expected:
//   step   1  loss 2.865  auxiliary 2.305
// and four more such lines, in which the loss falls to 0.
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>

#include <espalier/espalier.hpp>

using namespace espalier;

constexpr std::int64_t kVocabulary = 16, kHidden = 32, kWidth = 32, kExperts = 4, kTopK = 2;

AnyVar weight(const std::string& name, Shape shape) {
  return parameter(normal_weight<float>(name, shape, 0.15f, /*seed=*/0));
}
Linear<float> linear(const std::string& name, std::int64_t out, std::int64_t in) {
  return {name, weight(name, {out, in})};
}
RmsNorm<float> norm(const std::string& name) {
  return {name, parameter(Tensor<float>({kHidden}, 1.0f)), 1e-5f};
}
GroupedLinear<float> per_expert(const std::string& name, std::int64_t out, std::int64_t in) {
  std::vector<std::string> names;
  std::vector<AnyVar> weights;
  for (int e = 0; e < kExperts; ++e) {
    names.push_back(name + "." + std::to_string(e));
    weights.push_back(weight(names.back(), {out, in}));
  }
  return {names, weights};
}

// What train::Trainer asks of a model: its parameters, and its loss on a packed batch.
struct OwnModel {
  TokenEmbedding<float> embedding{"embedding", weight("embedding", {kVocabulary, kHidden})};
  RmsNorm<float> before_attention = norm("norm1"), before_experts = norm("norm2");
  Attention<float> attention{AttentionConfig{.heads = 2, .kv_heads = 1, .head_dim = 16},
                             linear("q", 32, kHidden), linear("k", 16, kHidden),
                             linear("v", 16, kHidden), linear("o", kHidden, 32)};
  MoeBlock<float> experts{
      Router<float>(linear("router", kExperts, kHidden), {.top_k = kTopK, .renormalize = false}),
      Experts<float>(per_expert("w1", kWidth, kHidden), per_expert("w2", kHidden, kWidth),
                     per_expert("w3", kWidth, kHidden))};
  AnyVar head = weight("head", {kVocabulary, kHidden});

  std::vector<NamedParameter> parameters() const {
    std::vector<NamedParameter> all = {{"head", head}};
    embedding.collect(all), before_attention.collect(all), attention.collect(all);
    before_experts.collect(all), experts.collect(all);
    return all;
  }
  ModelLoss<float> loss(const PackedTokens& tokens, const Tensor<std::int32_t>& targets,
                        const TrainContext* training) const {
    auto h = embedding(tokens.ids);
    h = add(h, attention(before_attention(h), positions_of(tokens), tokens.segments, training));
    const auto moe = experts(before_experts(h), training);
    const std::vector<Var<float>> logits = {moe.logits};  // of every layer
    return {linear_cross_entropy(add(h, moe.y), head, targets),
            add(load_balancing_loss(logits, kTopK), scale(router_z_loss(logits), 0.1))};
  }
};

// Sixteen sequences of a random pattern of four tokens, three times over; the first is not learned.
data::Batch patterns(std::uint64_t step) {
  const Philox random(/*seed=*/1, step);
  std::vector<data::Example> examples(16);
  for (std::uint64_t e = 0; e < 16; ++e) {
    for (std::uint64_t i = 0; i < 12; ++i) {
      examples[e].ids.push_back(static_cast<int>(random.below(4 * e + i % 4, kVocabulary)));
      examples[e].is_target.push_back(i >= 4);
    }
  }
  return data::make_batch(examples, data::one_example_per_row(examples.size()));
}

int main(int argc, char** argv) {
  try {
    if (argc == 3 && std::strcmp(argv[1], "--threads") == 0) set_num_threads(std::atoi(argv[2]));
    train::TrainerConfig config;
    config.schedule = {optim::ScheduleKind::cosine, /*lr=*/1e-2, /*warmup=*/5, /*steps=*/80};
    config.aux_coefficient = 0.01;
    train::Trainer trainer(OwnModel{}, config);
    for (std::uint64_t step = 1; step <= 80; ++step) {
      const train::StepResult r = trainer.step({patterns(step)});
      if (step > 1 && step % 20 != 0) continue;
      fmt::print("step {:3}  loss {:.3f}  auxiliary {:.3f}\n", step, r.loss, r.aux_loss);
    }
  } catch (const Error& e) {
    fmt::print(stderr, "03_own_block: {}\n", e.what());
    return 1;
  }
}
