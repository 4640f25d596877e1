// SPDX-License-Identifier: Apache-2.0
// A tiny model of a family (tests/golden/families) against what transformers says of it: logits,
// loss, the gradient of every matrix, LoRA, continuation from a cache.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include <espalier/hub/load_model.hpp>
#include <espalier/ops/scale.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/make_tensor.hpp"

namespace espalier::test {

/// One folder of tests/golden/families.
class GoldenFamily {
 public:
  explicit GoldenFamily(const std::string& name)
      : folder_(std::string(ESPALIER_TESTS_DIR) + "/golden/families/" + name),
        checkpoint_(folder_ + "/model"),
        forward_(folder_ + "/forward.safetensors") {
    CAPTURE(name);
    segments_ = {0};
    for (int s = 0; s < 2; ++s) {
      const auto ids = integers("ids.", s), labels = integers("labels.", s);
      sequences_.push_back(ids);
      packed_.ids.insert(packed_.ids.end(), ids.begin(), ids.end());
      segments_.push_back(packed_.tokens());
      for (std::size_t i = 1; i <= labels.size(); ++i) {
        const std::int32_t label = i < labels.size() ? labels[i] : -100;
        targets_.push_back(label < 0 ? -1 : label);
      }
    }
    packed_.segments = segments_;
  }

  const hub::Checkpoint& checkpoint() const { return checkpoint_; }

  /// Everything that is recorded of the model.
  void check() const {
    check_logits(hub::load_model<float>(checkpoint_), forward_);
    check_gradients();
    check_cache();
    check_threads();
  }

  /// The recorded adapter on every matrix.
  void check_lora() const {
    const io::SafetensorsFile golden(folder_ + "/lora.safetensors");
    Decoder<float> model = hub::load_model<float>(checkpoint_);
    LoraConfig lora;
    lora.r = 2;
    lora.alpha = 4;
    lora.targets = {"all+router"};
    model.add_lora(lora, 0);
    load_parameters<float>(model.parameters(), [&](const std::string& name) {
      return golden.tensor("base_model.model." + name);
    });
    check_logits(model, golden);
    backward_of_loss(model, golden);
    std::size_t checked = 0;
    for (const NamedParameter& p : model.parameters()) {
      require_near(p.var.grad(), golden.tensor("grad.base_model.model." + p.name), 1e-5,
                   "gradient of " + p.name);
      ++checked;
    }
    std::size_t recorded = 0;
    for (const io::TensorInfo& t : golden.tensors()) recorded += t.name.starts_with("grad.");
    REQUIRE(checked == recorded);
  }

 private:
  std::vector<std::int32_t> integers(const char* prefix, int s) const {
    const Tensor<std::int64_t> t(forward_.tensor(prefix + std::to_string(s)));
    return {t.span().begin(), t.span().end()};
  }

  /// Relative to the largest element.
  static void require_near(const AnyTensor& got, const AnyTensor& want, double tolerance,
                           const std::string& what) {
    const auto w = to_vector(want);
    double largest = 0;
    for (const double v : w) largest = std::max(largest, std::abs(v));
    const Mismatch m = compare(to_vector(got), w, tolerance * largest, tolerance);
    INFO(what << ": " << m);
    REQUIRE(m.count == 0);
  }

  void check_logits(const Decoder<float>& model, const io::SafetensorsFile& golden) const {
    const NoGrad no_grad;
    for (int s = 0; s < 2; ++s) {
      const auto hidden = model.hidden(PackedTokens(sequences_[static_cast<std::size_t>(s)]));
      require_near(model.logits(hidden.value()), golden.tensor("logits." + std::to_string(s)), 1e-5,
                   "logits " + std::to_string(s));
    }
  }

  void backward_of_loss(const Decoder<float>& model, const io::SafetensorsFile& golden) const {
    const Tensor<std::int32_t> targets(Shape{static_cast<std::int64_t>(targets_.size())}, targets_);
    const auto count =
        std::count_if(targets_.begin(), targets_.end(), [](int t) { return t >= 0; });
    const auto loss =
        scale(model.loss(packed_, targets).loss_sum, 1.0 / static_cast<double>(count));
    require_near(loss.value().reshaped({}), golden.tensor("loss").reshaped({}), 1e-5, "loss");
    backward(loss);
  }

  void check_gradients() const {
    const Decoder<float> model(
        checkpoint_.config(), [&](const std::string& name) { return checkpoint_.tensor(name); },
        Decoder<float>::Base::trainable);
    backward_of_loss(model, forward_);
    // Gradients lie as the weights do, so they are found in the same way.
    const Weights wanted(checkpoint_.config(),
                         [&](const std::string& name) { return forward_.tensor("grad." + name); });
    const auto parameters = model.parameters();
    for (const LinearModule& m : linear_modules(checkpoint_.config())) {
      const auto p = std::find_if(parameters.begin(), parameters.end(),
                                  [&](const auto& q) { return q.name == m.name + ".weight"; });
      INFO(m.name);
      REQUIRE(p != parameters.end());
      require_near(p->var.grad(), wanted.get(m.part, m.layer, m.expert), 1e-5,
                   "gradient of " + m.name);
    }
  }

  /// A prefix, then one token at a time, then the rest at once: the bits of one pass.
  void check_cache() const {
    const NoGrad no_grad;
    const auto model = hub::load_model<float>(checkpoint_);
    const auto& ids = sequences_[0];
    const auto n = static_cast<std::int64_t>(ids.size());
    const auto whole = model.hidden(PackedTokens(ids)).value();
    auto cache = model.new_cache(2);
    KvCache<float>* caches[] = {&cache};
    const auto part = [&](std::int64_t begin, std::int64_t end) {
      const auto rows =
          model.hidden(PackedTokens({ids.begin() + begin, ids.begin() + end}), caches);
      REQUIRE(same_bits(rows, whole.rows(begin, end)));
    };
    part(0, 4);
    for (std::int64_t i = 4; i < n - 2; ++i) part(i, i + 1);
    part(n - 2, n);
  }

  void check_threads() const {
    const NoGrad no_grad;
    const auto model = hub::load_model<float>(checkpoint_);
    std::vector<AnyTensor> all;
    for (const int threads : {1, 2, 3}) {
      set_num_threads(threads);
      all.push_back(model.hidden(packed_).value());
      REQUIRE(same_bits(all.back(), all.front()));
    }
    set_num_threads(2);
  }

  std::string folder_;
  hub::Checkpoint checkpoint_;
  io::SafetensorsFile forward_;
  std::vector<std::vector<std::int32_t>> sequences_;
  std::vector<std::int64_t> segments_;
  PackedTokens packed_;
  std::vector<std::int32_t> targets_;
};

}  // namespace espalier::test
