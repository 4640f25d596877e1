// SPDX-License-Identifier: Apache-2.0
// make_checkpoint: a synthetic Mixtral-layout checkpoint, for tests, benches and rehearsals of a
// run whose real weights are elsewhere. Weights are normal(0, initializer range), norms are one.
//   make_checkpoint --output tiny --layers 2 --hidden 64 --intermediate 128 --heads 4 --kv-heads 2
#include <cli/program.hpp>
#include <cli/progress.hpp>
#include <map>
#include <normal_weights.hpp>

#include <espalier/hub/json_config.hpp>

namespace {

using namespace espalier;

struct Options {
  std::string output, tokenizer, dtype = "bf16", max_shard_size = "5GB";
  DecoderConfig config = [] {
    DecoderConfig c;
    c.hidden_size = 256;
    c.mixture.width = 512;
    c.num_hidden_layers = 4;
    c.attention.heads = 8;
    c.attention.kv_heads = 2;
    c.attention.head_dim = 0;
    c.max_position_embeddings = 4096;
    return c;
  }();
  CLI::Option* vocab = nullptr;
};

void declare(CLI::App& app, Options& o) {
  DecoderConfig& c = o.config;
  const auto size = CLI::Range(std::int64_t{1}, std::int64_t{0x7fffffff});
  app.add_option("--output", o.output, "Folder to write; must not exist")->required();
  app.add_option("--layers", c.num_hidden_layers, "Decoder layers")->check(size);
  app.add_option("--hidden", c.hidden_size, "Width of the residual stream")->check(size);
  app.add_option("--intermediate", c.mixture.width, "Width inside an expert")->check(size);
  app.add_option("--heads", c.attention.heads, "Query heads")->check(size);
  app.add_option("--kv-heads", c.attention.kv_heads, "Key and value heads")->check(size);
  app.add_option("--head-dim", c.attention.head_dim, "Width of a head; 0 takes hidden / heads");
  app.add_option("--experts", c.mixture.experts, "Experts per layer")->check(size);
  app.add_option("--top-k", c.mixture.router.top_k, "Experts per token")->check(size);
  o.vocab = app.add_option("--vocab", c.vocab_size, "Tokens in the vocabulary")->check(size);
  app.add_option("--max-positions", c.max_position_embeddings, "Longest sequence")->check(size);
  app.add_option("--rope-theta", c.attention.rope.theta, "Base of the rotary embedding");
  app.add_option("--sliding-window", c.attention.window,
                 "Attention window; 0: every earlier token");
  app.add_option("--initializer-range", c.initializer_range, "Standard deviation of the weights");
  app.add_flag("--tie-embeddings", c.tie_word_embeddings, "Output head shares the embedding");
  app.add_option("--dtype", o.dtype, "Type of the stored weights")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}));
  app.add_option("--max-shard-size", o.max_shard_size, "Largest shard, such as 5GB or 500MB");
  app.add_option("--tokenizer", o.tokenizer,
                 "Folder whose tokenizer files to copy; its config.json gives --vocab and the "
                 "special tokens");
}

/// Takes vocabulary and special tokens from the folder that the tokenizer comes from.
void adopt_tokenizer(Options& o) {
  const std::filesystem::path folder = o.tokenizer;
  if (!std::filesystem::exists(folder / "config.json")) return;
  const io::Json json = io::read_json(folder / "config.json");
  if (o.vocab->count() == 0 && json.find_value("vocab_size")) {
    o.config.vocab_size = json.at("vocab_size").as_int();
  }
  const auto id = [](const io::Json* v, std::int32_t none) {
    return v == nullptr || v->is_null() ? none : static_cast<std::int32_t>(v->as_int());
  };
  o.config.bos_token_id = id(json.find("bos_token_id"), -1);
  o.config.pad_token_id = id(json.find("pad_token_id"), -1);
  o.config.eos_token_ids = hub::token_ids(json.find("eos_token_id"));
}

void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to) {
  int copied = 0;
  for (const char* name :
       {"tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"}) {
    if (!std::filesystem::exists(from / name)) continue;
    io::write_text(to / name, io::read_text(from / name));
    ++copied;
  }
  ESP_REQUIRE(copied > 0, IoError, from.string(),
              ": no tokenizer files (tokenizer.json, ...) here");
}

void write_generation_config(const DecoderConfig& c, const std::filesystem::path& folder) {
  const io::Json config = hub::config_json(c, DType::f32);
  io::Json j = io::Json::object();
  j["_from_model_config"] = true;
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if (!config.at(key).is_null()) j[key] = config.at(key);
  }
  io::write_text(folder / "generation_config.json", io::dump(j, 2) + "\n");
}

void run(Options o, const CommonOptions& common) {
  if (!o.tokenizer.empty()) adopt_tokenizer(o);
  DecoderConfig& c = o.config;
  const DType dtype = dtype_named(o.dtype);
  if (c.attention.head_dim == 0 && c.hidden_size % c.attention.heads == 0) {
    c.attention.head_dim = c.hidden_size / c.attention.heads;
  }
  const io::Json json = hub::config_json(c, dtype);
  try {  // the rules of reading are the rules of writing
    const io::Json again = io::parse_json(io::dump(json), "the options");
    (void)hub::parse_config(again);
  } catch (const FormatError& e) {
    throw UsageError(e.what());
  }
  const std::size_t max_shard_bytes = io::parse_bytes(o.max_shard_size);
  const std::vector<io::TensorSpec> tensors = hub::tensor_specs(c, dtype);
  std::map<std::string_view, std::uint64_t> number;
  for (std::size_t i = 0; i < tensors.size(); ++i) number[tensors[i].name] = i;

  io::AtomicFolder folder(o.output);
  io::CheckpointWriter out(folder.path(), tensors, max_shard_bytes);
  {
    Progress progress("writing", static_cast<std::int64_t>(out.total_bytes() / 1000000), "MB");
    std::size_t done = 0;
    for (const io::ShardPlan& shard : out.shards()) {
      for (const io::TensorSpec& t : shard.tensors) {
        stop_if_interrupted();
        if (t.name.ends_with("norm.weight")) {
          append_elements(out, t, Philox(0), [](std::int64_t, float) { return 1.0f; });
        } else {
          append_normal(out, t, common.seed, number.at(t.name),
                        static_cast<float>(c.initializer_range));
        }
        done += t.bytes;
        progress.update(static_cast<std::int64_t>(done / 1000000));
      }
    }
    out.commit();
  }
  io::write_text(folder.path() / "config.json", io::dump(json, 2) + "\n");
  write_generation_config(c, folder.path());
  if (!o.tokenizer.empty()) copy_tokenizer(o.tokenizer, folder.path());
  folder.commit();

  if (common.json) {
    io::Json result = io::Json::object();
    result["output"] = o.output;
    result["tensors"] = tensors.size();
    result["shards"] = out.shards().size();
    result["bytes"] = out.total_bytes();
    fmt::print("{}\n", io::dump(result));
  } else {
    fmt::print("{}: {} tensors in {} shard{}, {}\n", o.output, tensors.size(), out.shards().size(),
               out.shards().size() == 1 ? "" : "s",
               format_bytes(static_cast<double>(out.total_bytes())));
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return espalier::run_program(
      argc, argv, "make_checkpoint", "Writes a synthetic Mixtral-layout checkpoint.",
      [&](CLI::App& app) { declare(app, o); },
      [&](const espalier::CommonOptions& common) { run(o, common); });
}
