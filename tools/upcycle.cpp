// SPDX-License-Identifier: Apache-2.0
// upcycle: a dense Llama-layout checkpoint becomes a mixture of experts ("sparse upcycling",
// Komatsuzaki et al. 2022). Every expert starts as the dense feed-forward block (gate_proj -> w1,
// up_proj -> w3, down_proj -> w2); Mixtral renormalises the gates of the chosen experts, so without
// noise the result computes what the dense model does. Tensors stream from file to file.
//   upcycle --model smollm2 --output smollm2-moe --experts 8 --top-k 2
#include <cli/program.hpp>
#include <cli/progress.hpp>
#include <cmath>
#include <map>
#include <normal_weights.hpp>

#include <espalier/io/checkpoint.hpp>

namespace {

using namespace espalier;

struct Options {
  std::string model, output, max_shard_size = "5GB";
  std::int64_t experts = 8, top_k = 2;
  double noise = 0.0, router_std = 0.02;
};

void declare(CLI::App& app, Options& o) {
  app.add_option("--model", o.model, "Folder of the dense Llama-layout checkpoint")->required();
  app.add_option("--output", o.output, "Folder to write; must not exist")->required();
  app.add_option("--experts", o.experts, "Experts per layer")->check(CLI::Range(1, 4096));
  app.add_option("--top-k", o.top_k, "Experts per token")->check(CLI::Range(1, 4096));
  app.add_option("--noise", o.noise,
                 "Noise on each expert's weights, in standard deviations of the tensor; 0 copies")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--router-std", o.router_std, "Standard deviation of the router's weights")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--max-shard-size", o.max_shard_size, "Largest shard, such as 5GB or 500MB");
}

/// The dense tensor that a tensor of the result comes from; empty for routers.
std::string source_of(const std::string& name) {
  const std::string marker = ".block_sparse_moe.";
  const std::size_t at = name.find(marker);
  if (at == std::string::npos) return name;
  const std::string prefix = name.substr(0, at);
  if (name.ends_with(".w1.weight")) return prefix + ".mlp.gate_proj.weight";
  if (name.ends_with(".w2.weight")) return prefix + ".mlp.down_proj.weight";
  if (name.ends_with(".w3.weight")) return prefix + ".mlp.up_proj.weight";
  return "";
}

struct Weights {
  std::vector<io::TensorSpec> tensors;
  std::map<std::string, std::uint64_t> number;  // of a tensor: its stream of random numbers
};

/// The result's tensors in the types of their sources; a router takes that of its layer's experts.
Weights plan(const io::Checkpoint& dense, const MixtralConfig& config) {
  Weights w{io::checkpoint_tensors(config, DType::f32), {}};
  for (io::TensorSpec& t : w.tensors) {
    std::string source = source_of(t.name);
    if (source.empty())
      source = t.name.substr(0, t.name.find(".block_sparse_moe")) + ".mlp.gate_proj.weight";
    t.type = dense.at(source).type;
    t.bytes = io::checked_bytes(t, dense.folder().string());
    w.number.emplace(t.name, w.number.size());
  }
  return w;
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
    append_elements(out, spec, philox,
                    [&](std::int64_t i, float z) { return static_cast<float>(x[i]) + scale * z; });
  });
}

void append_tensor(io::CheckpointWriter& out, const io::TensorSpec& t, const io::Checkpoint& dense,
                   const Options& o, std::uint64_t seed, std::uint64_t stream) {
  const std::string source = source_of(t.name);
  if (source.empty()) {
    append_normal(out, t, seed, stream, static_cast<float>(o.router_std));
  } else if (source != t.name && o.noise > 0) {
    append_noisy(out, t, dense.tensor(source), Philox(seed, stream), o.noise);
  } else {
    dense.shard_of(source).content.for_each_piece(
        dense.at(source),
        [&](const void* data, std::size_t bytes) { out.append(t.name, data, bytes); });
  }
}

void run(const Options& o, const CommonOptions& common) {
  ESP_REQUIRE(o.top_k <= o.experts, UsageError, "--top-k ", o.top_k, " exceeds --experts ",
              o.experts);
  const std::size_t max_shard_bytes = io::parse_bytes(o.max_shard_size);
  const io::Checkpoint dense(o.model);
  ESP_REQUIRE(dense.config().num_local_experts == 0, FormatError, o.model,
              ": has experts already (model_type \"", dense.config().model_type,
              "\"); expected a dense Llama-layout checkpoint");
  MixtralConfig config = io::parse_config(dense.config_json());
  config.model_type = "mixtral";
  config.num_local_experts = o.experts;
  config.num_experts_per_tok = o.top_k;
  const Weights weights = plan(dense, config);

  io::AtomicFolder folder(o.output);
  io::CheckpointWriter out(folder.path(), weights.tensors, max_shard_bytes);
  {
    Progress progress("writing", static_cast<std::int64_t>(out.total_bytes() / 1000000), "MB");
    std::size_t done = 0;
    for (const io::ShardPlan& shard : out.shards()) {
      for (const io::TensorSpec& t : shard.tensors) {
        stop_if_interrupted();
        append_tensor(out, t, dense, o, common.seed, weights.number.at(t.name));
        done += t.bytes;
        progress.update(static_cast<std::int64_t>(done / 1000000));
      }
    }
    out.commit();
  }
  io::write_text(folder.path() / "config.json",
                 io::dump(io::mixtral_config_json(config, dense.dtype()), 2) + "\n");
  io::copy_companions(dense.folder(), folder.path(), {"config.json"});
  folder.commit();

  if (common.json) {
    io::Json result = io::Json::object();
    result["output"] = o.output;
    result["experts"] = o.experts;
    result["top_k"] = o.top_k;
    result["tensors"] = weights.tensors.size();
    result["shards"] = out.shards().size();
    result["bytes"] = out.total_bytes();
    fmt::print("{}\n", io::dump(result));
  } else {
    fmt::print("{}: {} experts, {} per token, {} tensors in {} shard{}, {}\n", o.output, o.experts,
               o.top_k, weights.tensors.size(), out.shards().size(),
               out.shards().size() == 1 ? "" : "s",
               format_bytes(static_cast<double>(out.total_bytes())));
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return espalier::run_program(
      argc, argv, "upcycle",
      "Turns a dense Llama-layout checkpoint into a mixture of experts in Mixtral layout.",
      [&](CLI::App& app) { declare(app, o); },
      [&](const espalier::CommonOptions& common) { run(o, common); });
}
