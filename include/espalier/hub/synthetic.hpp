// SPDX-License-Identifier: Apache-2.0
// Writes a synthetic checkpoint of any family with a forward pass, for tests, benches and
// rehearsals of a run without its real weights. Norms are one; weights, biases and sinks are
// normal(0, initializer range), drawn by seed and number of the tensor.
//   hub::write_synthetic("tiny", {.family = "olmoe", .layers = 2, .hidden = 64, .width = 128});
#pragma once

#ifdef __CUDACC__
#error "espalier/hub/synthetic.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/atomic_folder.hpp>
#include <espalier/io/checkpoint_writer.hpp>

namespace espalier::hub {

struct SyntheticCheckpoint {
  std::string family = "mixtral";  // model_type
  std::int64_t layers = 4, hidden = 256;
  std::int64_t width = 512;  // intermediate size of a feed-forward layer and of each expert
  std::int64_t heads = 8, kv_heads = 2;
  std::int64_t head_dim = 0;  // 0: hidden / heads
  std::int64_t max_positions = 4096;
  double rope_theta = 1e6, initializer_range = 0.02;
  bool tie_embeddings = false;
  /// A family that has no such number refuses it.
  std::optional<std::int64_t> experts = {}, top_k = {};  // else 8 and 2
  std::optional<std::int64_t> shared_width = {};  // else `width`, where the family has that expert
  std::optional<std::int64_t> dense_layers =
      {};                                   // else 1, where the family begins with such layers
  std::optional<std::int64_t> window = {};  // 0: every earlier token; else the family's
  /// Folder whose tokenizer files are copied; empty: no tokenizer. Its config.json, if any, gives
  /// the special tokens, and the vocabulary size unless `vocab` gives it.
  std::string tokenizer = {};
  std::optional<std::int64_t> vocab = {};  // else 32000

  DType dtype = DType::bf16;
  std::uint64_t seed = 0;
  std::size_t max_shard_bytes = io::kDefaultShardBytes;
};

/// Converts the sizes to the configuration of the family.
/// @throws UsageError for an unknown family, for sizes that the family does not have, and for
/// numbers that are not finite
[[nodiscard]] DecoderConfig synthetic_config(const SyntheticCheckpoint& c);

struct WrittenSizes {
  std::size_t tensors = 0, shards = 0, bytes = 0;
};
[[nodiscard]] WrittenSizes written_sizes(const io::CheckpointWriter& out);

/// Called before the first tensor and after each one. May throw: then no folder appears.
using WriteProgress = std::function<void(std::size_t bytes_done, std::size_t bytes_total)>;

/// Writes config.json, generation_config.json, the shards, and the tokenizer's files.
/// @throws UsageError as synthetic_config; IoError, also where the folder exists
WrittenSizes write_synthetic(const std::filesystem::path& folder, const SyntheticCheckpoint& c,
                             const WriteProgress& progress = {});

}  // namespace espalier::hub

#ifdef ESP_BODIES
#include <cmath>

#include <espalier/io/normal_weights.hpp>
#include <espalier/models/families/registry.hpp>

namespace espalier::hub {

namespace detail {

struct SpecialTokens {
  std::int64_t vocab = DecoderConfig().vocab_size;
  io::Json bos = DecoderConfig().bos_token_id, pad;
  io::Json eos = io::Json::array(DecoderConfig().eos_token_ids);
};

inline SpecialTokens special_tokens_of(const SyntheticCheckpoint& c) {
  SpecialTokens tokens;
  const std::filesystem::path config = std::filesystem::path(c.tokenizer) / "config.json";
  if (!c.tokenizer.empty() && std::filesystem::exists(config)) {
    const io::Json json = io::read_json(config);
    const auto id = [&](const char* key) {
      const io::Json* v = json.find_value(key);
      return v == nullptr || v->as_int() < 0 ? io::Json() : io::Json(v->as_int());
    };
    if (json.find_value("vocab_size")) tokens.vocab = json.at("vocab_size").as_int();
    tokens.bos = id("bos_token_id");
    tokens.pad = id("pad_token_id");
    tokens.eos = io::Json::array(token_ids(json.find("eos_token_id")));
  }
  tokens.vocab = c.vocab.value_or(tokens.vocab);
  return tokens;
}

/// Adds the keys of mixtures.
inline void put_mixture(const SyntheticCheckpoint& c, const Family& family, io::Json& j) {
  const std::int64_t shared = c.shared_width.value_or(c.width);
  for (const std::string& key : family.expert_keys) j[key] = c.experts.value_or(8);
  j["num_experts_per_tok"] = c.top_k.value_or(2);
  j["norm_topk_prob"] = true;
  j["shared_expert_intermediate_size"] = shared;
  j["n_shared_experts"] = shared / c.width;
  j["first_k_dense_replace"] = c.dense_layers.value_or(std::min<std::int64_t>(1, c.layers - 1));
  std::vector<std::int64_t> dense;
  for (std::int64_t l = 0; l < c.dense_layers.value_or(0); ++l) dense.push_back(l);
  j["mlp_only_layers"] = io::Json::array(dense);
}

/// Writes the sizes under the keys of all families; each family reads its own.
inline io::Json synthetic_json(const SyntheticCheckpoint& c, const Family& family) {
  const std::int64_t head_dim =
      c.head_dim > 0 ? c.head_dim : std::max<std::int64_t>(c.hidden / c.heads, 1);
  const SpecialTokens tokens = special_tokens_of(c);
  io::Json j = io::Json::object();
  j["model_type"] = family.model_type;
  j["hidden_size"] = c.hidden;
  for (const char* key : {"intermediate_size", "moe_intermediate_size"}) j[key] = c.width;
  j["num_hidden_layers"] = c.layers;
  j["num_attention_heads"] = c.heads;
  j["num_key_value_heads"] = c.kv_heads;
  if (c.head_dim > 0 || c.hidden % c.heads == 0) j["head_dim"] = head_dim;
  j["vocab_size"] = tokens.vocab;
  j["max_position_embeddings"] = c.max_positions;
  j["rope_theta"] = c.rope_theta;
  if (c.window) {
    j["sliding_window"] = *c.window > 0 ? io::Json(*c.window) : io::Json();
    j["use_sliding_window"] = *c.window > 0;
  }
  j["rms_norm_eps"] = DecoderConfig().rms_norm_eps;
  j["initializer_range"] = c.initializer_range;
  j["tie_word_embeddings"] = c.tie_embeddings;
  j["bos_token_id"] = tokens.bos;
  j["pad_token_id"] = tokens.pad;
  j["eos_token_id"] = tokens.eos;
  put_mixture(c, family, j);
  // keys of single families
  j["use_qk_norm"] = true;
  j["attention_multiplier"] = 1 / std::sqrt(static_cast<double>(head_dim));
  j["q_lora_rank"] = std::max<std::int64_t>(c.hidden / 2, 1);
  j["kv_lora_rank"] = std::max<std::int64_t>(c.hidden / 4, 1);
  j["qk_nope_head_dim"] = head_dim;
  j["qk_rope_head_dim"] = std::max<std::int64_t>(head_dim / 4, 1) * 2;
  j["v_head_dim"] = head_dim;
  return j;
}

inline bool is_norm(Part part) {
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

inline void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to) {
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

inline void write_generation_config(const DecoderConfig& c, const std::filesystem::path& folder) {
  const io::Json config = config_json(c, DType::f32);
  io::Json j = io::Json::object();
  j["_from_model_config"] = true;
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    if (!config.at(key).is_null()) j[key] = config.at(key);
  }
  io::write_text(folder / "generation_config.json", io::dump(j, 2) + "\n");
}

/// Refuses sizes that the family ignored.
inline void require_understood(const SyntheticCheckpoint& asked, const DecoderConfig& c) {
  const std::string a = "a " + asked.family;
  ESP_REQUIRE(c.has_mixture() || !(asked.experts || asked.top_k), UsageError, a,
              " is dense, it has no experts");
  ESP_REQUIRE(c.has_mixture() || !asked.shared_width, UsageError, a,
              " is dense, it has no shared expert");
  ESP_REQUIRE(!asked.shared_width || c.mixture.shared_width == *asked.shared_width, UsageError, a,
              " cannot have a shared expert of width ", asked.shared_width.value_or(0),
              ", its would be ", c.mixture.shared_width, " wide");
  ESP_REQUIRE(c.has_mixture() || !asked.dense_layers, UsageError, a,
              " is dense, it has no layers with experts behind the dense ones");
  for (std::int64_t l = 0; asked.dense_layers && l < c.num_hidden_layers; ++l) {
    ESP_REQUIRE(c.has_mixture(l) == (l >= *asked.dense_layers), UsageError, "every layer of ", a,
                " has experts, it cannot begin with ", *asked.dense_layers, " dense layers");
  }
  // Windows must survive writing and reading.
  const DecoderConfig again =
      parse_config(io::parse_json(io::dump(config_json(c, DType::f32)), "the sizes"));
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) {
    ESP_REQUIRE(again.window(l) == c.window(l), UsageError, "the config.json of ", a,
                " cannot say that layer ", l, " sees ", c.window(l), " tokens (0: all)");
  }
}

}  // namespace detail

ESP_INLINE DecoderConfig synthetic_config(const SyntheticCheckpoint& c) {
  const Family* family = find_family(c.family);
  ESP_REQUIRE(family != nullptr && family->write != nullptr, UsageError, "a ", c.family,
              " cannot be written; there are ", computed_families());
  ESP_REQUIRE(c.initializer_range >= 0 && c.initializer_range <= 1e3, UsageError,
              "initializer range ", c.initializer_range, ", expected a number from 0 to 1000");
  ESP_REQUIRE(c.rope_theta >= 1 && c.rope_theta <= 1e30, UsageError, "rope theta ", c.rope_theta,
              ", expected a number from 1 to 1e30");
  ESP_REQUIRE(c.window.value_or(0) >= 0, UsageError, "window ", c.window.value_or(0),
              ", expected 0 or more");
  try {
    const io::Json json = io::parse_json(io::dump(detail::synthetic_json(c, *family)), "the sizes");
    const DecoderConfig config = parse_config(json);
    detail::require_understood(c, config);
    return config;
  } catch (const FormatError& e) {
    throw UsageError(e.what());
  }
}

ESP_INLINE WrittenSizes written_sizes(const io::CheckpointWriter& out) {
  WrittenSizes sizes{0, out.shards().size(), out.total_bytes()};
  for (const io::ShardSpec& shard : out.shards()) sizes.tensors += shard.tensors.size();
  return sizes;
}

ESP_INLINE WrittenSizes write_synthetic(const std::filesystem::path& folder,
                                        const SyntheticCheckpoint& c,
                                        const WriteProgress& progress) {
  const DecoderConfig config = synthetic_config(c);
  const std::vector<TensorPlace> places = stored_tensors(config);
  std::map<std::string_view, std::uint64_t> number;
  for (std::size_t i = 0; i < places.size(); ++i) number[places[i].name] = i;

  io::AtomicFolder whole(folder);
  io::CheckpointWriter out(whole.path(), tensor_specs(config, c.dtype), c.max_shard_bytes);
  std::size_t done = 0;
  if (progress) progress(done, out.total_bytes());
  for (const io::ShardSpec& shard : out.shards()) {
    for (const io::TensorSpec& t : shard.tensors) {
      const std::uint64_t stream = number.at(t.name);
      if (detail::is_norm(places[stream].part)) {
        io::append_elements(out, t, Philox(0), [](std::int64_t, float) { return 1.0f; });
      } else {
        io::append_normal(out, t, c.seed, stream, static_cast<float>(config.initializer_range));
      }
      done += t.bytes;
      if (progress) progress(done, out.total_bytes());
    }
  }
  out.commit();
  io::write_text(whole.path() / "config.json", io::dump(config_json(config, c.dtype), 2) + "\n");
  detail::write_generation_config(config, whole.path());
  if (!c.tokenizer.empty()) detail::copy_tokenizer(c.tokenizer, whole.path());
  whole.commit();
  return written_sizes(out);
}

}  // namespace espalier::hub
#endif
