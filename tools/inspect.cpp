// SPDX-License-Identifier: Apache-2.0
// inspect: what a checkpoint is, where its bytes lie, and how much memory the programs will need.
//   inspect mixtral-8x7b --lora-r 16 --tokens 1024
#include <limits>

#include <espalier/hub/forecast.hpp>
#include <espalier/hub/tensor_groups.hpp>

#include "cli/print.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;

struct Options {
  std::string folder;
  std::int64_t lora_r = 16, tokens = 512;
};

using Groups = std::vector<hub::TensorGroup>;

struct Term {
  std::string name, meaning;
  double bytes;
};
struct Forecast {
  std::string program;
  std::vector<Term> terms;
  double total() const {
    double sum = 0;
    for (const Term& t : terms) sum += t.bytes;
    return sum;
  }
};

/// What the programs forecast themselves before they begin.
std::vector<Forecast> forecast(const hub::Checkpoint& k, const Options& o) {
  const DecoderConfig& c = k.config();
  const double stored = static_cast<double>(k.total_bytes());
  LoraConfig lora;
  lora.r = static_cast<int>(o.lora_r);
  lora.targets = resolve_targets(c, {"all+router"});
  const std::int64_t trainable = lora_parameters(c, o.lora_r, lora.targets);
  const Term weights{"weights",
                     "mapped as they are stored; the system may drop and read them again", stored};
  const auto tune = forecast_fine_tuning(c, stored, lora, trainable, o.tokens);
  const auto pass = forecast_inference(c, stored, o.tokens, false);
  const auto scores = forecast_inference(c, stored, o.tokens, true);
  return {{"fine_tune",
           {weights,
            {"adapter",
             fmt::format("LoRA matrices of rank {} on every linear layer, and their gradients",
                         o.lora_r),
             tune.adapter_bytes},
            {"optimizer", "AdamW's two moments per adapter parameter", tune.optimizer_bytes},
            {"activations", "kept for the backward pass, and the work of one layer",
             tune.activation_bytes}}},
          {"analyze", {weights, {"activations", "of the layer at work", pass.activation_bytes}}},
          {"evaluate",
           {weights,
            {"activations", "of the layer at work, and a score for every token of the vocabulary",
             scores.activation_bytes}}}};
}

/// An estimate beyond 64 bits is the largest number.
std::int64_t whole_bytes(double bytes) {
  return bytes < 0x1p63 ? static_cast<std::int64_t>(bytes)
                        : std::numeric_limits<std::int64_t>::max();
}

io::Json to_json(const hub::Checkpoint& k, const Groups& groups, double parameters,
                 const Options& o) {
  io::Json j = io::Json::object();
  j["folder"] = o.folder;
  j["architecture"] = hub::architecture_json(k);
  j["unused_tensors"] = io::Json::array(k.unused_tensors());
  j["warnings"] = io::Json::array(k.warnings());
  j["parameters"] = static_cast<std::int64_t>(parameters);
  j["bytes"] = k.total_bytes();
  j["tensors"] = k.names().size();
  j["groups"] = io::Json::array();
  for (const hub::TensorGroup& g : groups) {
    io::Json row = io::Json::object();
    row["name"] = g.pattern;
    row["dtype"] = g.type;
    row["count"] = g.count;
    row["parameters"] = g.parameters;
    row["bytes"] = g.bytes;
    j["groups"].push_back(std::move(row));
  }
  j["shards"] = io::Json::array();
  for (const auto& shard : k.shards()) {
    io::Json row = io::Json::object();
    row["file"] = shard.file;
    row["tensors"] = shard.content.tensors().size();
    row["bytes"] = shard.content.size_bytes();
    j["shards"].push_back(std::move(row));
  }
  if (!k.computable()) return j;
  for (const Forecast& f : forecast(k, o)) {
    io::Json& row = j["memory_bytes"][f.program];
    for (const Term& t : f.terms) row[t.name] = whole_bytes(t.bytes);
    row["total"] = whole_bytes(f.total());
  }
  return j;
}

void print_choice(const hub::Mixture& m) {
  if (m.groups > 1) {
    print("  in {} groups, the best {} of which are chosen from\n", m.groups, m.top_groups);
  }
  if (!m.prediction.empty()) {
    print("  and {} layer{} of multi-token prediction with experts\n", m.prediction.size(),
          m.prediction.size() == 1 ? "" : "s");
  }
}

void print_architecture(const hub::Checkpoint& k, double parameters) {
  print("{}: {}, {:.2f} billion parameters, {} in {} tensors and {} file{}\n", k.folder().string(),
        k.family().model_type, parameters / 1e9, format_bytes(static_cast<double>(k.total_bytes())),
        k.names().size(), k.shards().size(), k.shards().size() == 1 ? "" : "s");
  const hub::Mixture& m = k.mixture();
  if (!k.computable()) {
    print("  {} layers, {} with a mixture of {} experts, {} of them per token\n", m.layers,
          hub::sparse_layers(m), m.experts, m.top_k);
    print_choice(m);
    print("  no forward pass: {}\n", k.why_not_computable());
    return;
  }
  const DecoderConfig& c = k.config();
  print("  {} layers, hidden size {}, vocabulary {}{}\n", c.num_hidden_layers, c.hidden_size,
        c.vocab_size, c.tie_word_embeddings ? " (output head shares the embedding)" : "");
  print("  attention: {} heads of {}, {} for keys and values, rope base {}, up to {} positions\n",
        c.attention.heads, c.attention.head_dim, c.attention.kv_heads, c.attention.rope.theta,
        c.max_position_embeddings);
  if (c.attention.window > 0) print("  sliding window of {} tokens\n", c.attention.window);
  if (!c.has_mixture()) {
    print("  feed-forward: dense, width {}\n", c.intermediate_size);
    return;
  }
  const std::int64_t sparse = hub::sparse_layers(m);
  print("  mixture: {} experts of width {} in {}, {} of them per token\n", m.experts,
        c.mixture.width,
        sparse == c.num_hidden_layers ? std::string("each layer")
                                      : fmt::format("{} of the layers", sparse),
        m.top_k);
  if (c.mixture.shared_width > 0) {
    print("  and an expert of width {} that sees every token\n", c.mixture.shared_width);
  }
  print_choice(m);
}

void print_tables(const hub::Checkpoint& k, const Groups& groups) {
  Table tensors({"tensors", "count", "shape", "type", "parameters", "bytes"});
  for (const hub::TensorGroup& g : groups) {
    tensors.add_row({g.pattern, std::to_string(g.count), g.shape, g.type,
                     std::to_string(g.parameters), format_bytes(static_cast<double>(g.bytes))});
  }
  print("\n{}\n", tensors.text());
  Table shards({"file", "tensors", "bytes"});
  for (const auto& shard : k.shards()) {
    shards.add_row({shard.file, std::to_string(shard.content.tensors().size()),
                    format_bytes(static_cast<double>(shard.content.size_bytes()))});
  }
  print("{}\n", shards.text());
}

void print_memory(const hub::Checkpoint& k, const Options& o) {
  print(
      "Memory to expect for a batch of one sequence of {} tokens, computing in f32 (estimates; "
      "--tokens and --lora-r change them)\n",
      o.tokens);
  Table table({"program", "part", "bytes", "what it is"});
  for (const Forecast& f : forecast(k, o)) {
    for (const Term& t : f.terms) {
      table.add_row({f.program, t.name, format_bytes(t.bytes), t.meaning});
    }
    table.add_row({f.program, "total", format_bytes(f.total()), ""});
  }
  table.print();
}

void print_unused(const hub::Checkpoint& k) {
  const auto& unused = k.unused_tensors();
  if (unused.empty()) return;
  print("{} tensors that the model does not use, such as {}\n\n", unused.size(), unused[0]);
}

void run(const Options& o, const CommonOptions& common) {
  const hub::Checkpoint checkpoint(o.folder);
  print_warnings("inspect", checkpoint.warnings());
  const Groups groups = hub::tensor_groups(checkpoint);
  double parameters = 0;
  for (const hub::TensorGroup& g : groups) parameters += static_cast<double>(g.parameters);
  if (common.json) {
    print("{}\n", io::dump(to_json(checkpoint, groups, parameters, o)));
    return;
  }
  print_architecture(checkpoint, parameters);
  print_tables(checkpoint, groups);
  print_unused(checkpoint);
  if (checkpoint.computable()) print_memory(checkpoint, o);
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return espalier::run_program(
      argc, argv, "inspect",
      "Says what a checkpoint is: architecture, tensors, shards, bytes, memory that it will need.",
      [&](CLI::App& app) {
        app.add_option("folder", o.folder, "Checkpoint folder (config.json, *.safetensors)")
            ->required();
        app.add_option("--lora-r", o.lora_r, "Rank of the adapter, for the memory of fine_tune")
            ->check(integer_within(0, 1 << 16));
        app.add_option("--tokens", o.tokens, "Tokens in a batch, for the memory of activations")
            ->check(integer_within(1, 1 << 30));
      },
      [&](const espalier::CommonOptions& common) { run(o, common); });
}
