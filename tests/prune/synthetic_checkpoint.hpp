// SPDX-License-Identifier: Apache-2.0
// A scaled-down Mixtral on disk: shards filled by the rule of the real one, so that here too
// experts lie across two shards and routers apart from their experts.
#pragma once

#include <espalier/core/random.hpp>
#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/checkpoint_writer.hpp>
#include <espalier/io/file.hpp>
#include <espalier/nn/parameter.hpp>
#include <espalier/tensor/tensor.hpp>

#include "support/tiny_config.hpp"

namespace espalier::test {

inline DecoderConfig synthetic_config() {
  return tiny_config({.layers = 3, .experts = 6, .vocab = 40});
}

/// What Mixtral's tensors of a mixture, and of one of its experts, begin with.
template <class Layer>
std::string moe_prefix(Layer layer) {
  return "model.layers." + std::to_string(layer) + ".block_sparse_moe.";
}
template <class Layer, class Expert>
std::string expert_prefix(Layer layer, Expert expert) {
  return moe_prefix(layer) + "experts." + std::to_string(expert) + ".";
}

/// Value `i` of tensor `name`; every tensor has its own.
inline float synthetic_value(std::string_view name, std::uint64_t seed, std::int64_t i) {
  return 0.2f * Philox(seed, stream_of(name)).normal(static_cast<std::uint64_t>(i));
}

/// `seed` 0 and 1 differ by a little, like a model before and after fine-tuning.
inline void write_synthetic(const std::filesystem::path& folder, const DecoderConfig& config,
                            DType dtype = DType::bf16, std::size_t max_shard_bytes = 7000,
                            std::uint64_t seed = 0) {
  std::filesystem::create_directories(folder);
  io::write_text(folder / "config.json", io::dump(hub::config_json(config, dtype), 2) + "\n");
  io::CheckpointWriter out(folder, hub::tensor_specs(config, dtype), max_shard_bytes);
  for (const io::ShardSpec& shard : out.shards()) {
    for (const io::TensorSpec& spec : shard.tensors) {
      AnyTensor t(io::shape_of(spec, "synthetic"), dtype);
      visit_dtype<float, bf16>("synthetic", dtype, [&]<class T>() {
        for (std::int64_t i = 0; i < t.numel(); ++i) {
          float v = synthetic_value(spec.name, 0, i);
          if (seed != 0) v += 0.1f * synthetic_value(spec.name, seed, i);
          reinterpret_cast<T*>(t.bytes())[i] = static_cast<T>(v);
        }
      });
      out.write(spec.name, t);
    }
  }
  out.commit();
}

}  // namespace espalier::test
