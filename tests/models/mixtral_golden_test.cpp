// SPDX-License-Identifier: Apache-2.0
// The model against transformers and PEFT on the same weights (tests/golden/README.md): logits,
// losses and every gradient.
#include <map>

#include <espalier/io/safetensors.hpp>
#include <espalier/models/mixtral.hpp>
#include <espalier/ops/scale.hpp>
#include <espalier/ops/sum.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/make_tensor.hpp"
#include "support/tiny_mixtral.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

// Relative to the largest element: what "relative 1e-5 in f32" means for a tensor with zeros in it.
void require_close(const AnyTensor& got, const AnyTensor& want, double rtol,
                   const std::string& what) {
  const auto w = to_vector(want);
  double largest = 0;
  for (const double v : w) largest = std::max(largest, std::abs(v));
  const Mismatch m = compare(to_vector(got), w, rtol * largest, rtol);
  INFO(what << ": " << m);
  REQUIRE(m.count == 0);
}

template <class T>
constexpr double kForward = std::is_same_v<T, float> ? 1e-5 : 2e-5;

// The golden run is f32, so a double run differs by the golden's own rounding.
template <class T>
void check_logits(const Mixtral<T>& model, const io::SafetensorsFile& golden) {
  const auto inputs = golden_file("forward.safetensors");
  for (int s = 0; s < kGoldenSequences; ++s) {
    const auto ids = golden_ids(inputs, s);
    const NoGrad no_grad;
    const auto hidden = model.hidden(PackedTokens(ids));
    require_close(model.logits(hidden.value()), golden.tensor("logits." + std::to_string(s)),
                  kForward<T>, "logits " + std::to_string(s));
  }
}

template <class T>
void check_gradients(const Mixtral<T>& model, const GoldenBatch& batch, double aux_coefficient,
                     const std::function<const io::TensorInfo*(const std::string&)>& find,
                     const io::SafetensorsFile& golden, std::size_t least) {
  const TrainContext training{true, 0, 0};
  const auto loss = model.loss(batch.tokens, batch.targets, &training);
  auto objective = scale(loss.loss_sum, 1.0 / static_cast<double>(batch.target_count));
  if (aux_coefficient != 0) objective = add(objective, scale(loss.aux, aux_coefficient));
  for (const NamedParameter& p : model.parameters()) p.var.zero_grad();
  backward(objective);
  std::size_t checked = 0;
  for (const NamedParameter& p : model.parameters()) {
    const io::TensorInfo* info = find(p.name);
    if (!info) continue;
    ++checked;
    require_close(p.var.grad(), golden.tensor(*info), 1e-5, "gradient of " + p.name);
  }
  REQUIRE(checked >= least);
}

}  // namespace

TEMPLATE_TEST_CASE("Mixtral: logits equal those of transformers", "[models][golden]", float,
                   double) {
  check_logits(tiny_mixtral<TestType>(), golden_file("forward.safetensors"));
}

TEMPLATE_TEST_CASE("Mixtral: loss and auxiliary loss equal those of transformers",
                   "[models][golden]", float, double) {
  const auto golden = golden_file("forward.safetensors");
  const GoldenBatch batch = golden_batch(golden);
  const TrainContext training{true, 0, 0};
  const auto loss = tiny_mixtral<TestType>().loss(batch.tokens, batch.targets, &training);
  const double mean = loss.loss_sum.value()[0] / static_cast<double>(batch.target_count);
  require_close(Tensor<double>({1}, mean), golden.tensor("loss"), 1e-5, "loss");
  require_close(loss.aux.value(), golden.tensor("aux_loss"), 1e-5, "aux_loss");
}

TEST_CASE("Mixtral: every gradient of full training equals that of transformers",
          "[models][golden]") {
  const auto batch = golden_batch(golden_file("forward.safetensors"));
  const auto model = tiny_mixtral<float>(Mixtral<float>::Base::trainable);
  const auto plain = golden_file("gradients.safetensors");
  check_gradients(
      model, batch, 0, [&](const std::string& n) { return plain.find(n); }, plain,
      model.parameters().size());
  const auto with_aux = golden_file("gradients_with_aux.safetensors");
  check_gradients(
      model, batch, 0.1, [&](const std::string& n) { return with_aux.find(n); }, with_aux,
      with_aux.tensors().size());
}

TEST_CASE("Mixtral: logits, loss and every LoRA gradient equal those of PEFT", "[models][golden]") {
  const auto model = tiny_mixtral_with_adapter<float>();
  const auto golden = golden_file("adapter_forward.safetensors");
  check_logits(model, golden);
  const auto batch = golden_batch(golden_file("forward.safetensors"));
  for (const double coefficient : {0.0, 0.1}) {
    const std::string prefix = coefficient == 0 ? "grad.loss." : "grad.loss_and_aux.";
    check_gradients(
        model, batch, coefficient,
        [&](const std::string& n) { return golden.find(prefix + "base_model.model." + n); }, golden,
        model.parameters().size());
  }
}

TEST_CASE("Mixtral: its named tensors make the same model, frozen weights and adapters alike",
          "[models]") {
  const auto model = tiny_mixtral_with_adapter<float>();
  std::map<std::string, AnyTensor> saved;
  std::vector<std::string> trained;
  for (const NamedParameter& t : model.named_tensors()) {
    REQUIRE(saved.emplace(t.name, t.var.any()).second);
    if (t.trained()) trained.push_back(t.name);
  }
  std::vector<std::string> parameters;
  for (const NamedParameter& p : model.parameters()) parameters.push_back(p.name);
  REQUIRE(trained == parameters);
  const Layout layout(model.config());
  REQUIRE(saved.size() == layout.places().size() + parameters.size());
  for (const TensorPlace& place : layout.places()) {
    REQUIRE(saved.at(place.name).shape() == place.shape);
  }

  const auto stored = [&](const std::string& name) { return saved.at(name); };
  Mixtral<float> again(model.config(), stored);
  LoraConfig lora;
  lora.r = 4;
  lora.alpha = 8;
  lora.targets = {"q", "k", "v", "o", "gate", "w1", "w2", "w3"};
  again.add_lora(lora, 1);
  load_parameters<float>(again.parameters(), stored);
  const PackedTokens tokens(golden_ids(golden_file("forward.safetensors"), 0));
  REQUIRE(to_vector(again.hidden(tokens).value()) == to_vector(model.hidden(tokens).value()));
}

TEST_CASE("Mixtral: weights stored in f16 and bf16 act as their widened values, to the bit",
          "[models]") {
  const auto exact = tiny_mixtral_weights();
  const GoldenBatch batch = golden_batch(golden_file("forward.safetensors"));
  const auto all_of = [&](const std::function<AnyTensor(const std::string&)>& weights) {
    const auto model =
        tiny_mixtral_with_adapter<float>("adapter/adapter_model.safetensors", weights);
    const TrainContext training{true, 0, 0};
    const auto loss = model.loss(batch.tokens, batch.targets, &training);
    backward(add(loss.loss_sum, loss.aux));
    std::vector<AnyTensor> all = {loss.loss_sum.value(), loss.aux.value()};
    for (const NamedParameter& p : model.parameters()) all.push_back(p.var.grad());
    return all;
  };
  const auto check = [&]<class Stored>(Stored) {
    const auto narrow = all_of([&](const std::string& n) { return converted<Stored>(exact(n)); });
    const auto wide =
        all_of([&](const std::string& n) { return converted<float>(converted<Stored>(exact(n))); });
    for (std::size_t i = 0; i < wide.size(); ++i) REQUIRE(same_bits(narrow[i], wide[i]));
  };
  check(f16{});
  check(bf16{});
}

TEST_CASE("Mixtral: packing sequences changes no bit of their logits", "[models]") {
  const auto golden = golden_file("forward.safetensors");
  const auto model = tiny_mixtral<float>();
  const GoldenBatch batch = golden_batch(golden);
  const NoGrad no_grad;
  const auto packed = model.hidden(batch.tokens).value();
  for (int s = 0; s < kGoldenSequences; ++s) {
    const auto alone = model.hidden(PackedTokens(golden_ids(golden, s))).value();
    REQUIRE(same_bits(alone, packed.rows(batch.tokens.segments[s], batch.tokens.segments[s + 1])));
  }
}

TEST_CASE("Mixtral: continuing from a cache gives the bits of one pass", "[models]") {
  const auto golden = golden_file("forward.safetensors");
  const auto model = tiny_mixtral<float>();
  const auto ids = golden_ids(golden, 0);
  const NoGrad no_grad;
  const auto whole = model.hidden(PackedTokens(ids)).value();
  const std::size_t prefix = ids.size() / 2;
  auto cache = model.new_cache(4);
  KvCache<float>* caches[] = {&cache};
  const auto first = model.hidden(PackedTokens({ids.begin(), ids.begin() + prefix}), caches);
  REQUIRE(same_bits(first, whole.rows(0, prefix)));
  auto fork = cache.clone(cache.length(), 64);
  for (std::size_t i = prefix; i < ids.size(); ++i) {
    const auto row = model.hidden(PackedTokens({ids[i]}), caches);
    REQUIRE(same_bits(row, whole.rows(i, i + 1)));
  }
  KvCache<float>* forks[] = {&fork};
  const auto rest = model.hidden(PackedTokens({ids.begin() + prefix, ids.end()}), forks);
  REQUIRE(same_bits(rest, whole.rows(prefix, ids.size())));
}

TEST_CASE("Mixtral: the same bits for 1, 2, 3 and 8 threads, forward and backward", "[models]") {
  const auto batch = golden_batch(golden_file("forward.safetensors"));
  std::vector<AnyTensor> first;
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    const auto model = tiny_mixtral_with_adapter<float>();
    const TrainContext training{true, 0, 0};
    const auto loss = model.loss(batch.tokens, batch.targets, &training);
    backward(add(loss.loss_sum, loss.aux));
    std::vector<AnyTensor> all = {loss.loss_sum.any(), loss.aux.any()};
    for (const NamedParameter& p : model.parameters()) all.push_back(p.var.grad());
    if (first.empty()) first = all;
    REQUIRE(all.size() == first.size());
    for (std::size_t i = 0; i < all.size(); ++i) REQUIRE(same_bits(all[i], first[i]));
  }
  set_num_threads(2);
}

TEST_CASE("Mixtral: masked experts are never routed to", "[models]") {
  auto model = tiny_mixtral<float>();
  model.mask_experts({{0, 3, 5}, {1, 2}});
  std::vector<std::vector<std::int64_t>> counts(2, std::vector<std::int64_t>(8));
  const MoeObserver<float> observer = [&](const MoeObservation<float>& o) {
    for (const std::int32_t e : o.routing.chosen.span()) ++counts[o.layer][e];
  };
  const NoGrad no_grad;
  (void)model.hidden(golden_batch(golden_file("forward.safetensors")).tokens, &observer);
  for (const int e : {1, 2, 4, 6, 7}) REQUIRE(counts[0][e] == 0);
  for (const int e : {0, 3, 4, 5, 6, 7}) REQUIRE(counts[1][e] == 0);
  REQUIRE(counts[1][1] == counts[1][2]);
  REQUIRE(counts[1][1] > 0);
}

TEST_CASE("Mixtral: wrong shapes and targets are refused by name", "[models]") {
  auto config = tiny_mixtral_config();
  config.mixture.width = 47;
  REQUIRE_THROWS_WITH(Mixtral<float>(config, tiny_mixtral_weights()),
                      "model.layers.0.block_sparse_moe.experts.0.w1.weight: shape is [48, 32], "
                      "expected [47, 32] by config.json");
  auto model = tiny_mixtral<float>();
  LoraConfig lora;
  lora.targets = {"q", "w9"};
  REQUIRE_THROWS_WITH(model.add_lora(lora, 0),
                      "lora: unknown target 'w9', expected some of "
                      "q,k,v,o,router,gate,up,down,w1,w2,w3, or all, or all+router");
}
