// SPDX-License-Identifier: Apache-2.0
// The tiny Mixtral of tests/golden and its recorded batches, read without the layers above models/.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include <espalier/io/safetensors.hpp>
#include <espalier/models/mixtral.hpp>

#include "support/tiny_config.hpp"

namespace espalier::test {

inline constexpr int kGoldenSequences = 4;

inline std::string tiny_mixtral_path(const std::string& name) {
  return std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/" + name;
}
inline io::SafetensorsFile golden_file(const std::string& name) {
  return io::SafetensorsFile(tiny_mixtral_path(name));
}

inline MixtralConfig tiny_mixtral_config() {
  MixtralConfig c = tiny_config({.hidden = 32, .width = 48, .experts = 8, .vocab = 128});
  c.rms_norm_eps = 1e-4;
  return c;
}

inline std::function<AnyTensor(const std::string&)> tiny_mixtral_weights() {
  auto shards = std::make_shared<std::vector<io::SafetensorsFile>>();
  for (const char* name :
       {"model/model-00001-of-00002.safetensors", "model/model-00002-of-00002.safetensors"}) {
    shards->push_back(golden_file(name));
  }
  return [shards](const std::string& name) {
    for (const auto& shard : *shards) {
      if (const io::TensorInfo* info = shard.find(name)) return shard.tensor(*info);
    }
    throw Error("tiny_mixtral: no tensor " + name);
  };
}

template <class T>
Mixtral<T> tiny_mixtral(typename Mixtral<T>::Base base = Mixtral<T>::Base::frozen) {
  return Mixtral<T>(tiny_mixtral_config(), tiny_mixtral_weights(), base);
}

/// As stored in a bf16 checkpoint.
inline std::function<AnyTensor(const std::string&)> tiny_mixtral_bf16_weights() {
  return [exact = tiny_mixtral_weights()](const std::string& name) -> AnyTensor {
    return converted<bf16>(exact(name));
  };
}

template <class T>
Mixtral<T> tiny_mixtral_with_adapter(
    const std::string& file = "adapter/adapter_model.safetensors",
    const std::function<AnyTensor(const std::string&)>& weights = tiny_mixtral_weights()) {
  Mixtral<T> model(tiny_mixtral_config(), weights);
  LoraConfig lora;
  lora.r = 4;
  lora.alpha = 8;
  lora.targets = {"q", "k", "v", "o", "gate", "w1", "w2", "w3"};
  model.add_lora(lora, 0);
  const auto adapter = golden_file(file);
  load_parameters<acc_t<T>>(model.parameters(), [&](const std::string& name) {
    return adapter.tensor("base_model.model." + name);
  });
  return model;
}

inline std::vector<std::int32_t> golden_ints(const AnyTensor& t) {
  std::vector<std::int32_t> out;
  visit_dtype<std::int64_t, std::int32_t>("golden", t.dtype(), [&]<class I>() {
    for (const I v : Tensor<I>(t).span()) out.push_back(static_cast<std::int32_t>(v));
  });
  return out;
}
inline std::vector<std::int32_t> golden_ids(const io::SafetensorsFile& golden, int s) {
  return golden_ints(golden.tensor("ids." + std::to_string(s)));
}

struct GoldenBatch {
  PackedTokens tokens;
  Tensor<std::int32_t> targets;
  std::int64_t target_count = 0;
};

/// All sequences packed. Label i is predicted at position i - 1.
inline GoldenBatch golden_batch(const io::SafetensorsFile& golden) {
  GoldenBatch batch;
  std::vector<std::int32_t> targets;
  batch.tokens.segments = {0};
  for (int s = 0; s < kGoldenSequences; ++s) {
    const auto ids = golden_ids(golden, s);
    const auto labels = golden_ints(golden.tensor("labels." + std::to_string(s)));
    batch.tokens.ids.insert(batch.tokens.ids.end(), ids.begin(), ids.end());
    batch.tokens.segments.push_back(batch.tokens.tokens());
    for (std::size_t i = 1; i <= labels.size(); ++i) {
      const std::int32_t label = i < labels.size() ? labels[i] : -100;
      targets.push_back(label < 0 ? -1 : label);
      batch.target_count += label >= 0;
    }
  }
  batch.targets = Tensor<std::int32_t>(Shape{static_cast<std::int64_t>(targets.size())}, targets);
  return batch;
}

}  // namespace espalier::test
