// SPDX-License-Identifier: Apache-2.0
// make_checkpoint: a synthetic checkpoint of any family with a forward pass, for tests, benches and
// rehearsals of a run whose real weights are elsewhere. Norms are one; weights, biases and sinks
// are normal(0, initializer range).
//   make_checkpoint --output tiny --layers 2 --hidden 64 --intermediate 128 --heads 4 --kv-heads 2
//   make_checkpoint --output tiny --family deepseek_v3 --layers 3 --dense-layers 1 --heads 4
#include <cli/program.hpp>
#include <cli/progress.hpp>
#include <cmath>
#include <map>
#include <normal_weights.hpp>

#include <espalier/hub/checkpoint.hpp>

namespace {

using namespace espalier;

struct Options {
  std::string output, tokenizer, family = "mixtral", dtype = "bf16", max_shard_size = "5GB";
  DecoderConfig config = [] {
    DecoderConfig c;
    c.hidden_size = 256;
    c.mixture.width = 512;
    c.num_hidden_layers = 4;
    c.attention.heads = 8;
    c.attention.kv_heads = 2;
    c.attention.head_dim = 0;
    c.attention.rope.theta = 1e6;
    c.max_position_embeddings = 4096;
    return c;
  }();
  std::int64_t shared_width = 0, dense_layers = 0;
  // Asked whether they were given.
  CLI::Option *vocab = nullptr, *experts = nullptr, *top_k = nullptr, *window = nullptr;
  CLI::Option *shared = nullptr, *dense = nullptr;
};

void declare(CLI::App& app, Options& o) {
  DecoderConfig& c = o.config;
  const auto size = CLI::Range(std::int64_t{1}, std::int64_t{0x7fffffff});
  app.add_option("--output", o.output, "Folder to write; must not exist")->required();
  app.add_option("--family", o.family, "model_type: " + computed_families());
  app.add_option("--layers", c.num_hidden_layers, "Decoder layers")->check(size);
  app.add_option("--hidden", c.hidden_size, "Width of the residual stream")->check(size);
  app.add_option("--intermediate", c.mixture.width,
                 "Width inside a feed-forward layer, of each expert")
      ->check(size);
  app.add_option("--heads", c.attention.heads, "Query heads")->check(size);
  app.add_option("--kv-heads", c.attention.kv_heads, "Key and value heads")->check(size);
  app.add_option("--head-dim", c.attention.head_dim, "Width of a head; 0 takes hidden / heads");
  o.experts = app.add_option("--experts", c.mixture.experts, "Experts per layer")->check(size);
  o.top_k = app.add_option("--top-k", c.mixture.router.top_k, "Experts per token")->check(size);
  o.shared = app.add_option("--shared-intermediate", o.shared_width,
                            "Width of the expert that sees every token, in families that have one; "
                            "as --intermediate unless given")
                 ->check(CLI::Range(std::int64_t{0}, std::int64_t{0x7fffffff}));
  o.dense = app.add_option("--dense-layers", o.dense_layers,
                           "First layers without experts; 1 in families that begin so")
                ->check(CLI::Range(std::int64_t{0}, std::int64_t{4096}));
  o.vocab = app.add_option("--vocab", c.vocab_size, "Tokens in the vocabulary")->check(size);
  app.add_option("--max-positions", c.max_position_embeddings, "Longest sequence")->check(size);
  app.add_option("--rope-theta", c.attention.rope.theta, "Base of the rotary embedding");
  o.window = app.add_option("--sliding-window", c.attention.window,
                            "Attention window; 0: every earlier token; the family's unless given");
  app.add_option("--initializer-range", c.initializer_range, "Standard deviation of the weights");
  app.add_flag("--tie-embeddings", c.tie_word_embeddings, "Output head shares the embedding");
  app.add_option("--dtype", o.dtype, "Type of the stored weights")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}));
  app.add_option("--max-shard-size", o.max_shard_size, "Largest shard, such as 5GB or 500MB");
  app.add_option("--tokenizer", o.tokenizer,
                 "Folder whose tokenizer files to copy; its config.json gives --vocab and the "
                 "special tokens");
}

/// The options under every key by which a family may know them: it reads those that it has.
io::Json config_of_options(const Options& o, const Family& family) {
  const DecoderConfig& c = o.config;
  const std::int64_t hidden = c.hidden_size, heads = c.attention.heads;
  const std::int64_t head_dim =
      c.attention.head_dim > 0 ? c.attention.head_dim : std::max<std::int64_t>(hidden / heads, 1);
  const std::int64_t shared = o.shared->count() > 0 ? o.shared_width : c.mixture.width;
  const auto token = [](std::int32_t id) { return id < 0 ? io::Json() : io::Json(id); };
  io::Json j = io::Json::object();
  j["model_type"] = family.model_type;
  j["hidden_size"] = hidden;
  for (const char* key : {"intermediate_size", "moe_intermediate_size"}) j[key] = c.mixture.width;
  j["num_hidden_layers"] = c.num_hidden_layers;
  j["num_attention_heads"] = heads;
  j["num_key_value_heads"] = c.attention.kv_heads;
  if (c.attention.head_dim > 0 || hidden % heads == 0) j["head_dim"] = head_dim;
  j["vocab_size"] = c.vocab_size;
  j["max_position_embeddings"] = c.max_position_embeddings;
  j["rope_theta"] = c.attention.rope.theta;
  if (o.window->count() > 0) {
    const std::int64_t window = c.attention.window;
    j["sliding_window"] = window > 0 ? io::Json(window) : io::Json();
    j["use_sliding_window"] = window > 0;
  }
  j["rms_norm_eps"] = c.rms_norm_eps;
  j["initializer_range"] = c.initializer_range;
  j["tie_word_embeddings"] = c.tie_word_embeddings;
  j["bos_token_id"] = token(c.bos_token_id);
  j["pad_token_id"] = token(c.pad_token_id);
  j["eos_token_id"] = io::Json::array(c.eos_token_ids);
  // the mixture
  for (const std::string& key : family.expert_keys) j[key] = c.mixture.experts;
  j["num_experts_per_tok"] = c.mixture.router.top_k;
  j["norm_topk_prob"] = true;
  j["shared_expert_intermediate_size"] = shared;
  j["n_shared_experts"] = shared / c.mixture.width;
  const bool some = o.dense->count() > 0;
  j["first_k_dense_replace"] =
      some ? o.dense_layers : std::min<std::int64_t>(1, c.num_hidden_layers - 1);
  std::vector<std::int64_t> dense;
  for (std::int64_t l = 0; some && l < o.dense_layers; ++l) dense.push_back(l);
  j["mlp_only_layers"] = io::Json::array(dense);
  // what families have of their own
  j["use_qk_norm"] = true;
  j["attention_multiplier"] = 1 / std::sqrt(static_cast<double>(head_dim));
  const std::int64_t half = std::max<std::int64_t>(head_dim / 4, 1) * 2;
  j["q_lora_rank"] = std::max<std::int64_t>(hidden / 2, 1);
  j["kv_lora_rank"] = std::max<std::int64_t>(hidden / 4, 1);
  j["qk_nope_head_dim"] = head_dim;
  j["qk_rope_head_dim"] = half;
  j["v_head_dim"] = head_dim;
  return j;
}

/// The options as the family understands them. @throws UsageError for what it has not
DecoderConfig config_of(const Options& o) {
  const Family* family = find_family(o.family);
  ESP_REQUIRE(family != nullptr && family->write != nullptr, UsageError, "--family ", o.family,
              ": cannot be written; there are ", computed_families());
  try {
    const io::Json json = io::parse_json(io::dump(config_of_options(o, *family)), "the options");
    const DecoderConfig c = hub::parse_config(json);
    const bool mixture = c.has_mixture();
    for (const CLI::Option* option : {o.experts, o.top_k, o.shared, o.dense}) {
      ESP_REQUIRE(mixture || option->count() == 0, UsageError, option->get_name(), ": ", o.family,
                  " is dense");
    }
    ESP_REQUIRE(o.shared->count() == 0 || c.mixture.shared_width == o.shared_width, UsageError,
                "--shared-intermediate ", o.shared_width, ": cannot be in a ", o.family,
                ", which would have ", c.mixture.shared_width);
    for (std::int64_t l = 0; o.dense->count() > 0 && l < c.num_hidden_layers; ++l) {
      ESP_REQUIRE(c.has_mixture(l) == (l >= o.dense_layers), UsageError, "--dense-layers ",
                  o.dense_layers, ": every layer of a ", o.family, " has experts");
    }
    // What is written must be read as it was meant.
    const DecoderConfig again =
        hub::parse_config(io::parse_json(io::dump(hub::config_json(c, DType::f32)), "the options"));
    for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) {
      ESP_REQUIRE(again.window(l) == c.window(l), UsageError, "--sliding-window ",
                  c.attention.window, ": the config.json of a ", o.family, " cannot say so");
    }
    return c;
  } catch (const FormatError& e) {
    throw UsageError(e.what());
  }
}

bool is_norm(Part part) {
  switch (part) {
    case Part::input_norm:
    case Part::post_norm:
    case Part::final_norm:
    case Part::q_norm:
    case Part::k_norm:
    case Part::q_a_norm:
    case Part::kv_a_norm:
      return true;
    default:
      return false;
  }
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
  const DecoderConfig c = config_of(o);
  const DType dtype = dtype_named(o.dtype);
  const std::size_t max_shard_bytes = io::parse_bytes(o.max_shard_size);
  const std::vector<io::TensorSpec> tensors = hub::tensor_specs(c, dtype);
  const std::vector<TensorPlace> places = stored_tensors(c);
  std::map<std::string_view, std::uint64_t> number;
  for (std::size_t i = 0; i < places.size(); ++i) number[places[i].name] = i;

  io::AtomicFolder folder(o.output);
  io::CheckpointWriter out(folder.path(), tensors, max_shard_bytes);
  {
    Progress progress("writing", static_cast<std::int64_t>(out.total_bytes() / 1000000), "MB");
    std::size_t done = 0;
    for (const io::ShardPlan& shard : out.shards()) {
      for (const io::TensorSpec& t : shard.tensors) {
        stop_if_interrupted();
        const std::uint64_t stream = number.at(t.name);
        if (is_norm(places[stream].part)) {
          append_elements(out, t, Philox(0), [](std::int64_t, float) { return 1.0f; });
        } else {
          append_normal(out, t, common.seed, stream, static_cast<float>(c.initializer_range));
        }
        done += t.bytes;
        progress.update(static_cast<std::int64_t>(done / 1000000));
      }
    }
    out.commit();
  }
  io::write_text(folder.path() / "config.json", io::dump(hub::config_json(c, dtype), 2) + "\n");
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
      argc, argv, "make_checkpoint",
      "Writes a synthetic checkpoint, in Mixtral's layout or another family's.",
      [&](CLI::App& app) { declare(app, o); },
      [&](const espalier::CommonOptions& common) { run(o, common); });
}
