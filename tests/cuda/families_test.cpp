// SPDX-License-Identifier: Apache-2.0
// Tiny models of the families (tests/golden/families) on the device Cuda against the CPU: logits,
// loss, LoRA gradients, continuation from a cache. What is particular to each: sinks, biases and a
// clamped activation (gpt_oss), latent attention, groups and a selection bias (deepseek_v3), a
// gated shared expert (qwen2_moe), multipliers (granitemoe), partial rotation (glm4_moe).
#include <espalier/cuda.hpp>
#include <espalier/hub/load_model.hpp>

#include "cuda/both_devices.hpp"
#include "support/family_batch.hpp"

// Compiled once, in model_test.cpp.
extern template class espalier::Decoder<float, espalier::Cuda>;
extern template class espalier::Decoder<espalier::bf16, espalier::Cuda>;

using namespace espalier;
using namespace espalier::test;

namespace {

struct TinyFamily {
  explicit TinyFamily(const std::string& name)
      : folder(std::string(ESPALIER_TESTS_DIR) + "/golden/families/" + name),
        checkpoint(folder + "/model"),
        batch(folder + "/forward.safetensors") {}

  /// With an adapter on every matrix, whose B is not zero.
  template <class T, class D>
  Decoder<T, D> adapted() const {
    auto model = hub::load_model<T, D>(checkpoint);
    LoraConfig lora;
    lora.r = 2;
    lora.alpha = 4;
    lora.targets = {"all+router"};
    model.add_lora(lora, 3);
    std::uint64_t seed = 0;
    load_parameters<acc_t<T>>(model.parameters(), [&](const std::string& name) -> AnyTensor {
      for (const LinearModule& m : linear_modules(checkpoint.config())) {
        const bool is_a = name == m.name + ".lora_A.weight";
        if (!is_a && name != m.name + ".lora_B.weight") continue;
        const Shape shape = is_a ? Shape{2, m.in} : Shape{m.out, 2};
        return make_tensor<float>(shape, normal(shape.numel(), ++seed, 0.15));
      }
      throw Error("no matrix for " + name);
    });
    return model;
  }

  std::string folder;
  hub::Checkpoint checkpoint;
  FamilyBatch batch;
};

template <class Model>
double loss_and_backward(const Model& model, const FamilyBatch& batch) {
  const auto loss = model.loss(batch.tokens, batch.targets).loss_sum;
  backward(loss);
  return to_vector(loss.any().on_host())[0];
}

/// The largest difference; infinite if a value is none.
double distance(const std::vector<double>& a, const std::vector<double>& b) {
  double largest = 0;
  for (std::size_t i = 0; i < b.size(); ++i) {
    const double off = std::abs(a.at(i) - b[i]);
    largest = std::isfinite(off) ? std::max(largest, off) : HUGE_VAL;
  }
  return largest;
}

}  // namespace

TEST_CASE("device Cuda: families: logits, loss and every LoRA gradient equal the CPU's",
          "[cuda][families]") {
  const std::string name =
      GENERATE("gpt_oss", "deepseek_v3", "qwen2_moe", "granitemoe", "glm4_moe");
  CAPTURE(name);
  const TinyFamily family(name);
  const auto cpu = family.adapted<float, Cpu>();
  const auto device = family.adapted<float, Cuda>();
  {
    const NoGrad no_grad;
    const auto want = cpu.logits(cpu.hidden(family.batch.tokens).value());
    const auto got = device.logits(device.hidden(family.batch.tokens).value());
    require_close_runs(to_vector(to<Cpu>(got)), to_vector(want), DType::f32);
  }
  // Gradients: the CPU in f32 is up to 1.6e-5 of a tensor's largest element away from the same in
  // double. The device is within rounding of double, or not further than twice what the CPU is.
  const auto exact = family.adapted<double, Cpu>();
  const double want = loss_and_backward(exact, family.batch);
  CHECK(std::abs(loss_and_backward(cpu, family.batch) - want) <= 1e-6 * want);
  CHECK(std::abs(loss_and_backward(device, family.batch) - want) <= 1e-6 * want);
  const auto parameters = exact.parameters(), a = cpu.parameters(), b = device.parameters();
  REQUIRE(a.size() == parameters.size());
  REQUIRE(b.size() == parameters.size());
  REQUIRE(a.size() == 2 * linear_modules(family.checkpoint.config()).size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    CAPTURE(a[i].name);
    const auto gradient = to_vector(parameters[i].var.grad());
    const double largest = distance(gradient, std::vector<double>(gradient.size()));
    const double off = distance(to_vector(b[i].var.grad().on_host()), gradient);
    const double off_cpu = distance(to_vector(a[i].var.grad()), gradient);
    REQUIRE(std::isfinite(off_cpu));
    REQUIRE(off <= std::max(tol(DType::f32, 256) * largest, 2 * off_cpu));
  }
}

TEST_CASE("device Cuda: families: a cached continuation gives the hidden states of the whole pass",
          "[cuda][families]") {
  const std::string name =
      GENERATE("gpt_oss", "deepseek_v3", "qwen2_moe", "granitemoe", "glm4_moe");
  CAPTURE(name);
  const TinyFamily family(name);
  const auto model = hub::load_model<float, Cuda>(family.checkpoint);
  const auto end = family.batch.tokens.segments[1];
  const std::vector<std::int32_t> ids(family.batch.tokens.ids.begin(),
                                      family.batch.tokens.ids.begin() + end);
  const NoGrad no_grad;
  const auto whole = to<Cpu>(model.hidden(PackedTokens(ids)).value());
  auto cache = model.new_cache(2);
  KvCache<float, Cuda>* caches[] = {&cache};
  (void)model.hidden(PackedTokens({ids.begin(), ids.begin() + 4}), caches);
  (void)model.hidden(PackedTokens({ids.begin() + 4, ids.begin() + 5}), caches);
  const auto rest = to<Cpu>(model.hidden(PackedTokens({ids.begin() + 5, ids.end()}), caches));
  require_close_runs(to_vector(rest), to_vector(whole.rows(5, end)), DType::f32);
}

TEST_CASE("device Cuda: families: a checkpoint in bf16 beside bf16 activations runs as on the CPU",
          "[cuda][families]") {
  const std::string name = GENERATE("gpt_oss", "deepseek_v3", "qwen2_moe");
  CAPTURE(name);
  const TinyFamily family(name);
  // Every tensor in bf16, the selection biases too.
  const auto weights = [&](const std::string& tensor) -> AnyTensor {
    return converted<bf16>(family.checkpoint.tensor(tensor));
  };
  const Decoder<bf16> cpu(family.checkpoint.config(), weights);
  const Decoder<bf16, Cuda> device(family.checkpoint.config(), weights);
  const NoGrad no_grad;
  const auto want = cpu.logits(cpu.hidden(family.batch.tokens).value());
  const auto got = to<Cpu>(device.logits(device.hidden(family.batch.tokens).value()));
  // bf16 rounding may route a token elsewhere, and that changes all after it: most rows are close.
  const std::int64_t vocabulary = want.shape(1);
  std::int64_t close = 0;
  for (std::int64_t row = 0; row < want.shape(0); ++row) {
    double off = 0, largest = 0;
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      const double w = want[row * vocabulary + v], g = got[row * vocabulary + v];
      REQUIRE(std::isfinite(g));
      off = std::max(off, std::abs(g - w));
      largest = std::max(largest, std::abs(w));
    }
    close += off <= tol(DType::bf16, 16) * largest;
  }
  CAPTURE(close, want.shape(0));
  CHECK(4 * close >= 3 * want.shape(0));
}
