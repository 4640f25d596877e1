// SPDX-License-Identifier: Apache-2.0
// The model in bf16 against torch's (tests/golden/README.md). Two bf16 programs differ by as much
// as either differs from exact arithmetic, so what is compared is that error: the golden file has
// the logits and gradients of exact arithmetic on the same bf16 weights, and how far torch's bf16
// run with PEFT was from them.
#include <espalier/io/safetensors.hpp>
#include <espalier/models/mixtral.hpp>
#include <espalier/ops/scale.hpp>

#include "support/catch.hpp"
#include "support/make_tensor.hpp"
#include "support/tiny_mixtral.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

// One gradient is one draw of the noise on either side, for an expert with a token or two a wide
// one; the mean over all of them is not.
constexpr double kEach = 4.0;
constexpr double kMean = 1.25;

struct Excess {
  double sum = 0, worst = 0;
  int count = 0;

  /// Our error over torch's, both relative to the exact values.
  void add(const std::string& what, const AnyTensor& got, const io::SafetensorsFile& golden) {
    const auto exact = to_vector(golden.tensor("exact." + what)), ours = to_vector(got);
    REQUIRE(ours.size() == exact.size());
    double error = 0, size = 0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      error += (ours[i] - exact[i]) * (ours[i] - exact[i]);
      size += exact[i] * exact[i];
    }
    const double ratio = std::sqrt(error / size) / to_vector(golden.tensor("error." + what))[0];
    INFO(what << ": " << ratio << " times torch's error");
    REQUIRE(ratio <= kEach);
    sum += ratio;
    worst = std::max(worst, ratio);
    ++count;
  }
  double mean() const { return sum / count; }
};

}  // namespace

TEST_CASE("Mixtral in bf16: logits are as near to exact ones as torch's", "[models][golden]") {
  const auto golden = golden_file("bf16.safetensors");
  const auto model = tiny_mixtral_with_adapter<bf16>("adapter/adapter_model.safetensors",
                                                     tiny_mixtral_bf16_weights());
  Excess excess;
  for (int s = 0; s < kGoldenSequences; ++s) {
    const NoGrad no_grad;
    const auto hidden = model.hidden(PackedTokens(golden_ids(golden, s)));
    excess.add("logits." + std::to_string(s), model.logits(hidden.value()), golden);
  }
  INFO("mean " << excess.mean());
  REQUIRE(excess.mean() <= kMean);
}

TEST_CASE("Mixtral in bf16: loss and LoRA gradients are as near to exact ones as torch's",
          "[models][golden]") {
  const auto golden = golden_file("bf16.safetensors");
  const auto model = tiny_mixtral_with_adapter<bf16>("adapter/adapter_model.safetensors",
                                                     tiny_mixtral_bf16_weights());
  const GoldenBatch batch = golden_batch(golden);
  const auto loss = model.loss(batch.tokens, batch.targets);
  backward(scale(loss.loss_sum, 1.0 / static_cast<double>(batch.target_count)));
  const double mean_loss =
      static_cast<double>(loss.loss_sum.value()[0]) / static_cast<double>(batch.target_count);
  const double exact_loss = to_vector(golden.tensor("exact.loss"))[0];
  REQUIRE(std::abs(mean_loss - exact_loss) <= 0.01 * exact_loss);
  Excess excess;
  for (const NamedParameter& p : model.parameters()) {
    REQUIRE(p.var.grad().dtype() == DType::f32);
    excess.add("grad.base_model.model." + p.name, p.var.grad(), golden);
  }
  REQUIRE(excess.count > 30);
  INFO("mean " << excess.mean() << ", worst " << excess.worst);
  REQUIRE(excess.mean() <= kMean);
}
