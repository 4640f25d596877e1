// SPDX-License-Identifier: Apache-2.0
// make_checkpoint: a synthetic checkpoint of any family with a forward pass, for tests, benches and
// rehearsals of a run whose real weights are elsewhere. Norms are one; weights, biases and sinks
// are normal(0, initializer range).
//   make_checkpoint --output tiny --layers 2 --hidden 64 --intermediate 128 --heads 4 --kv-heads 2
//   make_checkpoint --output tiny --family deepseek_v3 --layers 3 --dense-layers 1 --heads 4
#include <espalier/hub/synthetic.hpp>

#include "cli/checkpoint_output.hpp"

namespace {

using namespace espalier;

struct Options {
  hub::SyntheticCheckpoint run;
  std::string output, dtype = "bf16", max_shard_size = "5GB";
  std::int64_t vocab = 32000, experts = 8, top_k = 2, shared = 0, dense = 0, window = 0;
  std::vector<std::pair<CLI::Option*, std::function<void()>>> optional;  // asked whether given
};

void declare(CLI::App& app, Options& o) {
  hub::SyntheticCheckpoint& c = o.run;
  const auto size = integer_within(1, 0x7fffffff), size_or_none = integer_within(0, 0x7fffffff);
  const auto add_optional = [&](const char* name, std::int64_t& value,
                                std::optional<std::int64_t>& to, const char* text) {
    CLI::Option* option = app.add_option(name, value, text);
    o.optional.emplace_back(option, [&] { to = value; });
    return option;
  };
  app.add_option("--output", o.output, "Folder to write; must not exist")->required();
  app.add_option("--family", c.family, "model_type: " + computed_families());
  app.add_option("--layers", c.layers, "Decoder layers")->check(size);
  app.add_option("--hidden", c.hidden, "Width of the residual stream")->check(size);
  app.add_option("--intermediate", c.width, "Width inside a feed-forward layer, of each expert")
      ->check(size);
  app.add_option("--heads", c.heads, "Query heads")->check(size);
  app.add_option("--kv-heads", c.kv_heads, "Key and value heads")->check(size);
  app.add_option("--head-dim", c.head_dim, "Width of a head; 0 takes hidden / heads")
      ->check(size_or_none);
  add_optional("--experts", o.experts, c.experts, "Experts per layer")->check(size);
  add_optional("--top-k", o.top_k, c.top_k, "Experts per token")->check(size);
  add_optional("--shared-intermediate", o.shared, c.shared_width,
               "Width of the expert that sees every token, in families that have one; as "
               "--intermediate unless given")
      ->check(size_or_none);
  add_optional("--dense-layers", o.dense, c.dense_layers,
               "First layers without experts; 1 in families that begin so")
      ->check(integer_within(0, 4096));
  add_optional("--vocab", o.vocab, c.vocab, "Tokens in the vocabulary")->check(size);
  app.add_option("--max-positions", c.max_positions, "Longest sequence")->check(size);
  app.add_option("--rope-theta", c.rope_theta, "Base of the rotary embedding")
      ->check(real_within(1, 1e12));
  add_optional("--sliding-window", o.window, c.window,
               "Attention window; 0: every earlier token; the family's unless given")
      ->check(size_or_none);
  app.add_option("--initializer-range", c.initializer_range, "Standard deviation of the weights")
      ->check(real_within(0, 1e3));
  app.add_flag("--tie-embeddings", c.tie_embeddings, "Output head shares the embedding");
  app.add_option("--dtype", o.dtype, "Type of the stored weights")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}));
  app.add_option("--max-shard-size", o.max_shard_size, "Largest shard, such as 5GB or 500MB");
  app.add_option("--tokenizer", c.tokenizer,
                 "Folder whose tokenizer files to copy; its config.json gives --vocab and the "
                 "special tokens");
}

void run(Options& o, const CommonOptions& common) {
  for (const auto& [option, take] : o.optional) {
    if (option->count() > 0) take();
  }
  o.run.dtype = dtype_named(o.dtype);
  o.run.max_shard_bytes = io::parse_bytes(o.max_shard_size);
  o.run.seed = common.seed;
  WritingProgress progress;
  const hub::WrittenSizes written = hub::write_synthetic(o.output, o.run, std::ref(progress));
  print_written(o.output, written, common.json);
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return espalier::run_program(
      argc, argv, "make_checkpoint",
      "Writes a synthetic checkpoint, in Mixtral's layout or another family's.",
      [&](CLI::App& app) { declare(app, o); },
      [&](const espalier::CommonOptions& common) { run(o, common); });
}
