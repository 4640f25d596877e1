// SPDX-License-Identifier: Apache-2.0
// upcycle: a dense checkpoint becomes a mixture of experts ("sparse upcycling", Komatsuzaki et al.
// 2022): llama and mistral a Mixtral, qwen3 a Qwen3-MoE. Every expert starts as the dense
// feed-forward block (for Mixtral gate_proj -> w1, up_proj -> w3, down_proj -> w2). Both mixtures
// renormalise the weights of the chosen experts, so without noise the result computes what the
// dense model does. Tensors stream from file to file.
//   upcycle --model smollm2 --output smollm2-moe --experts 8 --top-k 2
#include <cmath>
#include <map>

#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/atomic_folder.hpp>
#include <espalier/io/companions.hpp>
#include <espalier/io/normal_weights.hpp>

#include "cli/checkpoint_output.hpp"

namespace {

using namespace espalier;

struct Options {
  std::string model, output, max_shard_size = "5GB";
  std::int64_t experts = 8, top_k = 2;
  double noise = 0.0, router_std = 0.02;
};

void declare(CLI::App& app, Options& o) {
  app.add_option("--model", o.model, "Folder of the dense checkpoint: llama, mistral or qwen3")
      ->required();
  app.add_option("--output", o.output, "Folder to write; must not exist")->required();
  app.add_option("--experts", o.experts, "Experts per layer")->check(integer_within(1, 4096));
  app.add_option("--top-k", o.top_k, "Experts per token")->check(integer_within(1, 4096));
  app.add_option("--noise", o.noise,
                 "Noise on each expert's weights, in standard deviations of the tensor; 0 copies")
      ->check(real_within(0, 1e6));
  app.add_option("--router-std", o.router_std, "Standard deviation of the router's weights")
      ->check(real_within(0, 1e6));
  app.add_option("--max-shard-size", o.max_shard_size, "Largest shard, such as 5GB or 500MB");
}

struct Target {
  std::string source;    // the dense tensor that it comes from; empty for routers
  std::uint64_t number;  // its stream of random numbers
  bool of_expert;
};
struct UpcycledTensors {
  std::vector<io::TensorSpec> tensors;
  std::map<std::string, Target> targets;
};

/// The part of a dense layer that becomes `part`.
Part dense_part(Part part) {
  switch (part) {
    case Part::router:  // takes the type of what its experts come from
    case Part::expert_gate:
      return Part::gate;
    case Part::expert_up:
      return Part::up;
    case Part::expert_down:
      return Part::down;
    default:
      return part;
  }
}

/// The result's tensors in the types of their sources.
UpcycledTensors tensors_of(const hub::Checkpoint& dense, const DecoderConfig& config) {
  UpcycledTensors out;
  const TensorNames& names = dense.family().names;
  for (const TensorPlace& place : stored_tensors(config)) {
    const Part part = dense_part(place.part);
    const std::string source =
        place.bias ? names.bias(part, place.layer) : names.of(part, place.layer);
    io::TensorSpec spec = io::make_spec(place.name, DType::f32, place.shape);
    spec.type = dense.at(source).type;
    spec.bytes = io::checked_bytes(spec, dense.folder().string());
    out.tensors.push_back(std::move(spec));
    const bool router = place.part == Part::router;
    out.targets[place.name] = {router ? "" : source, out.targets.size(), place.expert >= 0};
  }
  return out;
}

double deviation(const AnyTensor& t) {
  double sum = 0, squares = 0;
  const auto n = static_cast<double>(std::max<std::int64_t>(t.numel(), 1));
  visit_dtype<float, double, bf16, f16>("upcycle", t.dtype(), [&]<class T>() {
    const T* x = reinterpret_cast<const T*>(t.bytes());
    for (std::int64_t i = 0; i < t.numel(); ++i) sum += static_cast<float>(x[i]);
    for (std::int64_t i = 0; i < t.numel(); ++i) {
      const double d = static_cast<float>(x[i]) - sum / n;
      squares += d * d;
    }
  });
  return std::sqrt(squares / n);
}

void append_noisy(io::CheckpointWriter& out, const io::TensorSpec& spec, const AnyTensor& source,
                  const Philox& philox, double noise) {
  const auto scale = static_cast<float>(noise * deviation(source));
  visit_dtype<float, double, bf16, f16>("upcycle", source.dtype(), [&]<class T>() {
    const T* x = reinterpret_cast<const T*>(source.bytes());
    io::append_elements(out, spec, philox, [&](std::int64_t i, float z) {
      return static_cast<float>(x[i]) + scale * z;
    });
  });
}

void append_tensor(io::CheckpointWriter& out, const io::TensorSpec& t, const hub::Checkpoint& dense,
                   const Options& o, std::uint64_t seed, const Target& target) {
  if (target.source.empty()) {
    io::append_normal(out, t, seed, target.number, static_cast<float>(o.router_std));
  } else if (target.of_expert && o.noise > 0) {
    append_noisy(out, t, dense.tensor(target.source), Philox(seed, target.number), o.noise);
  } else {
    dense.shard_of(target.source)
        .content.for_each_piece(dense.at(target.source), [&](const void* data, std::size_t bytes) {
          out.append(t.name, data, bytes);
        });
  }
}

/// The dense model's configuration as that of the mixture it becomes.
DecoderConfig mixture_config(const hub::Checkpoint& dense, const Options& o) {
  const std::string& type = dense.family().model_type;
  ESP_REQUIRE(dense.mixture().experts == 0, FormatError, o.model,
              ": has experts already (model_type \"", type, "\"); expected a dense checkpoint");
  DecoderConfig config = hub::parse_config(dense.config_json());
  constexpr const char* kCan = "llama, mistral and qwen3 checkpoints can be upcycled";
  ESP_REQUIRE(!config.attention.qkv_bias && !config.attention.o_bias && !config.mlp_bias,
              FormatError, o.model, ": this ", type,
              " has biases, for which the mixtures have no place; ", kCan, " where they have none");
  const Family* mixture = find_family(dense.family().upcycles_to);
  ESP_REQUIRE(mixture != nullptr, FormatError, o.model, ": no mixture has the layout of a ", type,
              "; ", kCan);
  config.model_type = mixture->model_type;
  config.names = mixture->names;
  config.mixture.experts = o.experts;
  config.mixture.router.top_k = o.top_k;
  config.mixture.width = config.intermediate_size;
  // Its own config.json must say the same.
  const DecoderConfig again =
      hub::parse_config(io::parse_json(io::dump(hub::config_json(config, DType::f32)), o.model));
  for (std::int64_t l = 0; l < config.num_hidden_layers; ++l) {
    ESP_REQUIRE(again.window(l) == config.window(l), FormatError, o.model, ": layer ", l, " sees ",
                config.window(l), " tokens (0: all), which a ", mixture->model_type, " cannot say");
  }
  return config;
}

void run(const Options& o, const CommonOptions& common) {
  ESP_REQUIRE(o.top_k <= o.experts, UsageError, "--top-k ", o.top_k, " exceeds --experts ",
              o.experts);
  const std::size_t max_shard_bytes = io::parse_bytes(o.max_shard_size);
  const hub::Checkpoint dense(o.model);
  const DecoderConfig config = mixture_config(dense, o);
  const UpcycledTensors weights = tensors_of(dense, config);

  io::require_apart(o.output, o.model);
  io::AtomicFolder folder(o.output);
  io::CheckpointWriter out(folder.path(), weights.tensors, max_shard_bytes,
                           io::companion_bytes(o.model, {"config.json"}));
  WritingProgress progress;
  std::size_t done = 0;
  progress(done, out.total_bytes());
  for (const io::ShardSpec& shard : out.shards()) {
    for (const io::TensorSpec& t : shard.tensors) {
      append_tensor(out, t, dense, o, common.seed, weights.targets.at(t.name));
      done += t.bytes;
      progress(done, out.total_bytes());
    }
  }
  out.commit();
  io::write_text(folder.path() / "config.json",
                 io::dump(hub::config_json(config, dense.dtype()), 2) + "\n");
  io::copy_companions(dense.folder(), folder.path(), {"config.json"});
  folder.commit();

  io::Json sizes = io::Json::object();
  sizes["experts"] = o.experts;
  sizes["top_k"] = o.top_k;
  print_written(o.output, hub::written_sizes(out), common.json, std::move(sizes),
                fmt::format("{} experts, {} per token, ", o.experts, o.top_k));
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return espalier::run_program(
      argc, argv, "upcycle",
      "Turns a dense checkpoint into a mixture of experts: llama and mistral into Mixtral's "
      "layout, qwen3 into Qwen3-MoE's.",
      [&](CLI::App& app) { declare(app, o); },
      [&](const espalier::CommonOptions& common) { run(o, common); });
}
