// SPDX-License-Identifier: Apache-2.0
// inspect: what a checkpoint is, where its bytes lie, and how much memory the programs will need.
//   inspect mixtral-8x7b --lora-r 16 --tokens 1024
#include <cli/program.hpp>
#include <cli/progress.hpp>
#include <map>

#include <espalier/io/checkpoint.hpp>

namespace {

using namespace espalier;

struct Options {
  std::string folder;
  std::int64_t lora_r = 16, tokens = 512;
};

struct Group {
  std::string pattern, type, shape;
  std::int64_t count = 0, parameters = 0;
  std::size_t bytes = 0;
};

/// "model.layers.12.x" -> "model.layers.*.x": one row for all layers and experts.
std::string pattern_of(const std::string& name) {
  std::string pattern;
  for (std::size_t i = 0; i < name.size();) {
    std::size_t end = std::min(name.find('.', i), name.size());
    const std::string part = name.substr(i, end - i);
    const bool number = part.find_first_not_of("0123456789") == std::string::npos;
    pattern += (i > 0 ? "." : "") + (number ? std::string("*") : part);
    i = end + 1;
  }
  return pattern;
}

std::int64_t parameters_of(const io::TensorSpec& t) {
  std::int64_t n = 1;
  for (const std::int64_t extent : t.shape) n *= extent;
  return n;
}

/// In the order of the model.
std::vector<Group> groups_of(const io::Checkpoint& checkpoint) {
  std::vector<Group> groups;
  std::map<std::string, std::size_t> index;
  for (const io::TensorSpec& want : io::checkpoint_tensors(checkpoint.config(), DType::f32)) {
    const io::TensorInfo& t = checkpoint.at(want.name);
    const std::string pattern = pattern_of(t.name), key = pattern + ' ' + t.type;
    if (index.emplace(key, groups.size()).second) {
      groups.push_back({pattern, t.type, io::shape_text(t)});
    }
    Group& g = groups[index.at(key)];
    ++g.count;
    g.parameters += parameters_of(t);
    g.bytes += t.bytes;
  }
  return groups;
}

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

/// Floats that one token leaves in one layer: norms, queries, keys, values, attention output, the
/// residual sums, router logits, and for each of its K experts input, w1, w3, their product,
/// output.
double activations_per_token(const MixtralConfig& c) {
  const double H = static_cast<double>(c.hidden_size), F = static_cast<double>(c.intermediate_size);
  const double experts = static_cast<double>(std::max<std::int64_t>(c.num_experts_per_tok, 1));
  const double heads = static_cast<double>(2 * c.num_attention_heads + 2 * c.num_key_value_heads);
  return 5 * H + heads * static_cast<double>(c.head_dim) +
         static_cast<double>(c.num_local_experts) + experts * (2 * H + 3 * F);
}

/// r * (inputs + outputs) over every linear layer: attention, router and experts.
double lora_parameters(const std::vector<io::TensorSpec>& tensors, std::int64_t r) {
  double sum = 0;
  for (const io::TensorSpec& t : tensors) {
    const bool linear = t.shape.size() == 2 && t.name.find(".layers.") != std::string::npos;
    if (linear) sum += static_cast<double>(r * (t.shape[0] + t.shape[1]));
  }
  return sum;
}

std::vector<Forecast> forecast(const MixtralConfig& c, const Options& o, double parameters,
                               double weight_bytes) {
  const std::vector<io::TensorSpec> tensors = io::checkpoint_tensors(c, DType::f32);
  const double tokens = static_cast<double>(o.tokens),
               layers = static_cast<double>(c.num_hidden_layers);
  const double layer_bytes = 4 * tokens * activations_per_token(c);
  const double logits_bytes = 4 * tokens * static_cast<double>(c.vocab_size);
  const Term weights{"weights", "every parameter once, in the type computed with",
                     parameters * weight_bytes};
  const Term one_layer{"activations", "intermediate results of the layer at work", layer_bytes};
  const Term logits{"logits", "a score for every token of the vocabulary, at every position",
                    logits_bytes};
  const double adapter = 4 * lora_parameters(tensors, o.lora_r);
  return {
      {"fine_tune",
       {weights,
        {"adapter", fmt::format("LoRA matrices of rank {} on every linear layer, f32", o.lora_r),
         adapter},
        {"gradients", "one number per adapter parameter", adapter},
        {"optimizer", "AdamW's two moments per adapter parameter", 2 * adapter},
        {"activations", "results of all layers, kept for the backward pass", layers * layer_bytes},
        {"logits", "scores over the vocabulary and their gradient", 2 * logits_bytes}}},
      {"analyze", {weights, one_layer}},
      {"evaluate", {weights, one_layer, logits}}};
}

io::Json to_json(const io::Checkpoint& k, const std::vector<Group>& groups, double parameters,
                 const Options& o) {
  const MixtralConfig& c = k.config();
  io::Json j = io::Json::object();
  j["folder"] = o.folder;
  io::Json& a = j["architecture"];
  a["model_type"] = c.model_type;
  a["layers"] = c.num_hidden_layers;
  a["hidden"] = c.hidden_size;
  a["intermediate"] = c.intermediate_size;
  a["heads"] = c.num_attention_heads;
  a["kv_heads"] = c.num_key_value_heads;
  a["head_dim"] = c.head_dim;
  a["experts"] = c.num_local_experts;
  a["top_k"] = c.num_experts_per_tok;
  a["vocab"] = c.vocab_size;
  a["max_positions"] = c.max_position_embeddings;
  a["sliding_window"] = c.sliding_window;
  a["rope_theta"] = c.rope_theta;
  a["rms_norm_eps"] = c.rms_norm_eps;
  a["tied_embeddings"] = c.tie_word_embeddings;
  j["parameters"] = static_cast<std::int64_t>(parameters);
  j["bytes"] = k.total_bytes();
  j["tensors"] = k.names().size();
  j["groups"] = io::Json::array();
  for (const Group& g : groups) {
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
  for (const auto& [dtype, width] : {std::pair{"f32", 4.0}, std::pair{"bf16", 2.0}}) {
    for (const Forecast& f : forecast(c, o, parameters, width)) {
      io::Json& row = j["memory_bytes"][f.program][dtype];
      for (const Term& t : f.terms) row[t.name] = static_cast<std::int64_t>(t.bytes);
      row["total"] = static_cast<std::int64_t>(f.total());
    }
  }
  return j;
}

void print_architecture(const io::Checkpoint& k, double parameters) {
  const MixtralConfig& c = k.config();
  fmt::print("{}: {}, {:.2f} billion parameters, {} in {} tensors and {} file{}\n",
             k.folder().string(), c.model_type, parameters / 1e9,
             format_bytes(static_cast<double>(k.total_bytes())), k.names().size(),
             k.shards().size(), k.shards().size() == 1 ? "" : "s");
  fmt::print("  {} layers, hidden size {}, vocabulary {}{}\n", c.num_hidden_layers, c.hidden_size,
             c.vocab_size, c.tie_word_embeddings ? " (output head shares the embedding)" : "");
  fmt::print(
      "  attention: {} heads of {}, {} for keys and values, rope base {}, up to {} positions\n",
      c.num_attention_heads, c.head_dim, c.num_key_value_heads, c.rope_theta,
      c.max_position_embeddings);
  if (c.sliding_window > 0) fmt::print("  sliding window of {} tokens\n", c.sliding_window);
  if (c.num_local_experts == 0) {
    fmt::print("  feed-forward: dense, width {}\n", c.intermediate_size);
  } else {
    fmt::print("  mixture: {} experts of width {} in each layer, {} of them per token\n",
               c.num_local_experts, c.intermediate_size, c.num_experts_per_tok);
  }
}

void print_tables(const io::Checkpoint& k, const std::vector<Group>& groups) {
  Table tensors({"tensors", "count", "shape", "type", "parameters", "bytes"});
  for (const Group& g : groups) {
    tensors.add_row({g.pattern, std::to_string(g.count), g.shape, g.type,
                     std::to_string(g.parameters), format_bytes(static_cast<double>(g.bytes))});
  }
  fmt::print("\n{}\n", tensors.text());
  Table shards({"file", "tensors", "bytes"});
  for (const auto& shard : k.shards()) {
    shards.add_row({shard.file, std::to_string(shard.content.tensors().size()),
                    format_bytes(static_cast<double>(shard.content.size_bytes()))});
  }
  fmt::print("{}\n", shards.text());
}

void print_memory(const MixtralConfig& c, const Options& o, double parameters) {
  fmt::print(
      "Memory to expect for a batch of one sequence of {} tokens (estimates; --tokens and "
      "--lora-r change them)\n",
      o.tokens);
  Table table({"program", "part", "f32", "bf16", "what it is"});
  const auto wide = forecast(c, o, parameters, 4), narrow = forecast(c, o, parameters, 2);
  for (std::size_t p = 0; p < wide.size(); ++p) {
    for (std::size_t t = 0; t < wide[p].terms.size(); ++t) {
      table.add_row({wide[p].program, wide[p].terms[t].name, format_bytes(wide[p].terms[t].bytes),
                     format_bytes(narrow[p].terms[t].bytes), wide[p].terms[t].meaning});
    }
    table.add_row({wide[p].program, "total", format_bytes(wide[p].total()),
                   format_bytes(narrow[p].total()), ""});
  }
  table.print();
}

void run(const Options& o, const CommonOptions& common) {
  ESP_REQUIRE(o.lora_r >= 0 && o.tokens > 0, UsageError, "--lora-r ", o.lora_r, " and --tokens ",
              o.tokens, " cannot be; expected 0 or more, and 1 or more");
  const io::Checkpoint checkpoint(o.folder);
  const std::vector<Group> groups = groups_of(checkpoint);
  double parameters = 0;
  for (const Group& g : groups) parameters += static_cast<double>(g.parameters);
  if (common.json) {
    fmt::print("{}\n", io::dump(to_json(checkpoint, groups, parameters, o)));
    return;
  }
  print_architecture(checkpoint, parameters);
  print_tables(checkpoint, groups);
  print_memory(checkpoint.config(), o, parameters);
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
        app.add_option("--lora-r", o.lora_r, "Rank of the adapter, for the memory of fine_tune");
        app.add_option("--tokens", o.tokens, "Tokens in a batch, for the memory of activations");
      },
      [&](const espalier::CommonOptions& common) { run(o, common); });
}
