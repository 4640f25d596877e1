// SPDX-License-Identifier: Apache-2.0
// Reads the part of config.json that families share, in both spellings of transformers:
// `rope_theta` and `rope_scaling` (4), `rope_parameters` (5). Refuses in one line any setting that
// changes the numbers and is not implemented.
#pragma once

#include <string>
#include <vector>

#include <espalier/core/math.hpp>
#include <espalier/models/families/family.hpp>

namespace espalier::families {

/// The values of absent keys, as in transformers for this family.
struct Defaults {
  double rms_norm_eps = 1e-6;
  double rope_theta = 1e4;
  std::int64_t max_positions = 2048;
  std::int64_t kv_heads = 0;  // 0: as many as query heads
  std::int64_t head_dim = 0;  // 0: hidden_size / num_attention_heads
  std::int32_t bos = -1;
  std::vector<std::int32_t> eos = {};
};

/// Reads all except biases, norms of queries and keys, windows and the mixture. The result is a
/// dense model whose tensors are named by `names`.
[[nodiscard]] DecoderConfig read_common(const ConfigReader& json, const TensorNames& names,
                                        const Defaults& defaults);

/// Reads `layer_types`: the layers with the window of `sliding_window`; without that key, all.
void read_windows(const ConfigReader& json, DecoderConfig& c);
/// Reads Qwen's window, which applies only with `use_sliding_window`.
void read_qwen_windows(const ConfigReader& json, DecoderConfig& c);

/// Reads the number of experts from the first present key of `keys`, the number per token, and the
/// width. All layers get a mixture.
void read_mixture(const ConfigReader& json, const std::vector<std::string>& keys,
                  const char* width_key, DecoderConfig& c);
/// Reads the dense layers of Qwen: `decoder_sparse_step` and `mlp_only_layers`.
void read_qwen_sparse_layers(const ConfigReader& json, DecoderConfig& c);
/// Reads `first_k_dense_replace`: the number of leading dense layers.
void read_first_dense(const ConfigReader& json, std::int64_t fallback, DecoderConfig& c);

/// @throws FormatError when one of these keys is true
void refuse_true(const ConfigReader& json, const std::vector<std::string>& keys, const char* why);

/// Reads the factor by which YaRN scales the softmax of the attention: mscale² in DeepSeek's
/// models.
[[nodiscard]] double yarn_softmax_scale(const ConfigReader& json);

/// The keys of Qwen's mixtures.
void write_qwen_mixture(const DecoderConfig& c, ConfigWriter& to);
/// The keys of DeepSeek's mixtures, and of those that follow it.
void read_deepseek_mixture(const ConfigReader& json, const Family& family, DecoderConfig& c);
void write_deepseek_mixture(const DecoderConfig& c, ConfigWriter& to);
/// Reads the router of DeepSeek-V3: sigmoid scores, a selection bias, groups ranked by their best
/// two.
void read_sigmoid_router(const ConfigReader& json, DecoderConfig& c);
/// Latent attention: ranks and widths of heads.
void read_latent_attention(const ConfigReader& json, DecoderConfig& c);
void write_latent_attention(const DecoderConfig& c, ConfigWriter& to);

/// The keys that read_common reads.
void write_common(const DecoderConfig& c, const Family& family, std::string_view dtype,
                  ConfigWriter& to);
/// Likewise where "intermediate_size" is the width of an expert.
void write_common_of_mixture(const DecoderConfig& c, const Family& family, std::string_view dtype,
                             ConfigWriter& to);
/// "sliding_window", null without one.
void write_window(const DecoderConfig& c, ConfigWriter& to);

}  // namespace espalier::families

#ifdef ESP_BODIES
namespace espalier::families {

namespace detail {

inline std::vector<std::int32_t> token_ids(const ConfigReader& json, std::string_view key) {
  std::vector<std::int32_t> ids;
  for (const std::int64_t id : json.integers(key)) {
    ESP_REQUIRE(id >= -1 && id <= 0x7fffffff, FormatError, json.where(key), ": ", id,
                " is not a token id");
    ids.push_back(static_cast<std::int32_t>(id));
  }
  return ids;
}
inline std::int32_t token_id(const ConfigReader& json, std::string_view key) {
  const std::vector<std::int32_t> ids = token_ids(json, key);
  return ids.empty() ? -1 : ids[0];
}

/// The object that describes the rotary embedding; empty: there is none.
inline std::string rope_object(const ConfigReader& json) {
  for (const char* key : {"rope_parameters", "rope_scaling"}) {
    if (json.has(key)) return std::string(key) + ".";
  }
  return {};
}

inline double yarn_mscale(double factor, double mscale) {
  return factor <= 1 ? 1.0 : 0.1 * mscale * math::log(factor) + 1.0;
}

inline void read_yarn(const ConfigReader& json, const std::string& in, double max_positions,
                      RopeConfig& rope) {
  rope.beta_fast = json.number_or(in + "beta_fast", 32);
  rope.beta_slow = json.number_or(in + "beta_slow", 1);
  rope.truncate = json.truth_or(in + "truncate", true);
  if (!json.has(in + "factor")) {
    rope.factor = max_positions / static_cast<double>(rope.original_positions);
  }
  const double mscale = json.number_or(in + "mscale", 0);
  const double all_dim = json.number_or(in + "mscale_all_dim", 0);
  const double inferred = mscale != 0 && all_dim != 0
                              ? yarn_mscale(rope.factor, mscale) / yarn_mscale(rope.factor, all_dim)
                              : yarn_mscale(rope.factor, 1);
  rope.attention_factor = json.number_or(in + "attention_factor", inferred);
}

inline void read_rope(const ConfigReader& json, double theta, DecoderConfig& c) {
  using Scaling = RopeConfig::Scaling;
  RopeConfig& rope = c.attention.rope;
  const std::string in = rope_object(json);
  rope.theta = json.number_or("rope_theta", theta);
  double rotated = json.number_or("partial_rotary_factor", 1);
  if (!in.empty()) {
    rope.theta = json.number_or(in + "rope_theta", rope.theta);
    rotated = json.number_or(in + "partial_rotary_factor", rotated);
    const bool typed = json.has(in + "rope_type") || json.has(in + "type");
    // transformers 5 takes rope_parameters without a type for plain rotary embeddings.
    ESP_REQUIRE(typed || (in == "rope_parameters." && !json.has(in + "factor")), FormatError,
                json.where(in.substr(0, in.size() - 1)),
                ": has no \"rope_type\"; expected \"default\", \"linear\", \"yarn\" or "
                "\"llama3\"");
    for (const char* key : {"rope_type", "type"}) {
      if (!json.has(in + key)) continue;
      const std::string type = json.text(in + key);
      if (type == "linear") rope.scaling = Scaling::linear;
      if (type == "yarn") rope.scaling = Scaling::yarn;
      if (type == "llama3") rope.scaling = Scaling::llama3;
      ESP_REQUIRE(type == "default" || rope.scaling != Scaling::none, UnsupportedError,
                  json.where(in + key), ": rope scaling \"", type,
                  "\" is not supported; expected \"default\", \"linear\", \"yarn\" or \"llama3\"");
      break;
    }
  }
  if (rope.scaling != Scaling::none) {
    const double positions = static_cast<double>(c.max_position_embeddings);
    rope.original_positions =
        json.positive_or(in + "original_max_position_embeddings", c.max_position_embeddings);
    rope.factor = json.number_or(in + "factor", 1);
    if (rope.scaling == Scaling::yarn) read_yarn(json, in, positions, rope);
    rope.low_freq_factor = json.number_or(in + "low_freq_factor", 1);
    rope.high_freq_factor = json.number_or(in + "high_freq_factor", 4);
    ESP_REQUIRE(rope.factor >= 1 && rope.factor < 1e6, FormatError, json.where(in + "factor"), ": ",
                rope.factor, " is no factor that a context grows by");
  }
  ESP_REQUIRE(rotated > 0 && rotated <= 1, FormatError, json.where(), ": partial_rotary_factor ",
              rotated, ", expected more than 0 and at most 1");
  if (rotated < 1) {
    rope.dims = static_cast<std::int64_t>(static_cast<double>(c.attention.head_dim) * rotated);
    ESP_REQUIRE(rope.dims > 0 && rope.dims % 2 == 0, FormatError, json.where(),
                ": partial_rotary_factor ", rotated, " rotates ", rope.dims, " of ",
                c.attention.head_dim, " values of a head; expected an even number");
  }
}

inline void read_heads(const ConfigReader& json, const Defaults& defaults, DecoderConfig& c) {
  AttentionConfig& a = c.attention;
  a.heads = json.positive("num_attention_heads");
  a.kv_heads =
      json.positive_or("num_key_value_heads", defaults.kv_heads > 0 ? defaults.kv_heads : a.heads);
  ESP_REQUIRE(a.heads % a.kv_heads == 0, FormatError, json.where(), ": num_attention_heads ",
              a.heads, " is not a multiple of num_key_value_heads ", a.kv_heads);
  if (json.has("head_dim")) {
    a.head_dim = json.positive("head_dim");
  } else if (defaults.head_dim > 0) {
    a.head_dim = defaults.head_dim;
  } else {
    ESP_REQUIRE(c.hidden_size % a.heads == 0, FormatError, json.where(), ": hidden_size ",
                c.hidden_size, " is not a multiple of num_attention_heads ", a.heads,
                ", and there is no head_dim");
    a.head_dim = c.hidden_size / a.heads;
  }
  ESP_REQUIRE(a.head_dim % 2 == 0, FormatError, json.where(), ": head_dim ", a.head_dim,
              " is odd; rotary embeddings need an even one");
}

}  // namespace detail

ESP_INLINE DecoderConfig read_common(const ConfigReader& json, const TensorNames& names,
                                     const Defaults& defaults) {
  DecoderConfig c;
  c.names = names;
  c.model_type = json.text("model_type");
  json.require("hidden_act", "silu");
  ESP_REQUIRE(!json.has("quantization_config"), UnsupportedError, json.where(),
              ": \"quantization_config\": quantized checkpoints can be inspected, pruned and "
              "verified, not computed with; use the bf16, f16 or f32 one");
  c.hidden_size = json.positive("hidden_size");
  c.intermediate_size = json.has("intermediate_size") ? json.positive("intermediate_size") : 0;
  c.num_hidden_layers = json.positive("num_hidden_layers");
  c.vocab_size = json.positive("vocab_size");
  c.mixture.experts = 0;
  c.mixture.width = 0;
  c.mixture.router.top_k = 0;
  c.max_position_embeddings = json.positive_or("max_position_embeddings", defaults.max_positions);
  detail::read_heads(json, defaults, c);
  detail::read_rope(json, defaults.rope_theta, c);
  c.rms_norm_eps = json.number_or("rms_norm_eps", defaults.rms_norm_eps);
  c.router_aux_loss_coef = json.number_or("router_aux_loss_coef", 0.001);
  c.initializer_range = json.number_or("initializer_range", 0.02);
  c.tie_word_embeddings = json.truth_or("tie_word_embeddings", false);
  c.bos_token_id =
      json.present("bos_token_id") ? detail::token_id(json, "bos_token_id") : defaults.bos;
  c.pad_token_id = json.present("pad_token_id") ? detail::token_id(json, "pad_token_id") : -1;
  c.eos_token_ids =
      json.present("eos_token_id") ? detail::token_ids(json, "eos_token_id") : defaults.eos;
  const double theta = c.attention.rope.theta;
  ESP_REQUIRE(theta > 0 && theta <= 1e30, FormatError, json.where(), ": rope_theta ", theta,
              ", expected a positive number of at most 1e30");
  ESP_REQUIRE(c.rms_norm_eps >= 0 && c.rms_norm_eps <= 1, FormatError, json.where(),
              ": rms_norm_eps ", c.rms_norm_eps, ", expected a number from 0 to 1");
  // Bounds above any checkpoint; they keep lists made from these numbers small.
  ESP_REQUIRE(c.num_hidden_layers <= 4096, FormatError, json.where(), ": ", c.num_hidden_layers,
              " layers are more than any checkpoint has");
  return c;
}

ESP_INLINE void read_windows(const ConfigReader& json, DecoderConfig& c) {
  if (!json.has("sliding_window") || json.integer("sliding_window") == 0) return;
  c.attention.window = json.positive("sliding_window");
  if (!json.has("layer_types")) return;
  const std::vector<std::string> types = json.texts("layer_types");
  ESP_REQUIRE(std::cmp_equal(types.size(), c.num_hidden_layers), FormatError,
              json.where("layer_types"), ": ", types.size(), " layers, num_hidden_layers is ",
              c.num_hidden_layers);
  for (const std::string& type : types) {
    ESP_REQUIRE(type == "full_attention" || type == "sliding_attention", UnsupportedError,
                json.where("layer_types"), ": \"", type,
                "\" is not supported; expected \"full_attention\" or \"sliding_attention\"");
    c.full_layers.push_back(type == "full_attention");
  }
}

ESP_INLINE void read_qwen_windows(const ConfigReader& json, DecoderConfig& c) {
  if (!json.truth_or("use_sliding_window", false)) return;
  read_windows(json, c);
  if (c.attention.window == 0 || !c.full_layers.empty()) return;
  const std::int64_t first = json.has("max_window_layers") ? json.integer("max_window_layers") : 0;
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) {
    c.full_layers.push_back(l < first);
  }
}

ESP_INLINE void read_mixture(const ConfigReader& json, const std::vector<std::string>& keys,
                             const char* width_key, DecoderConfig& c) {
  MixtureConfig& m = c.mixture;
  std::string key = keys.front();
  for (const std::string& k : keys) {
    if (!json.has(k)) continue;
    key = k;
    break;
  }
  m.experts = json.positive(key);
  for (const std::string& other : keys) {
    ESP_REQUIRE(!json.has(other) || json.integer(other) == m.experts, FormatError,
                json.where(other), ": is ", json.integer(other), ", but ", key, " is ", m.experts,
                "; both name the number of experts, and loaders differ in which they read: make "
                "them equal");
  }
  m.router.top_k = json.positive("num_experts_per_tok");
  m.width = json.positive(width_key);
  ESP_REQUIRE(m.router.top_k <= m.experts, FormatError, json.where(), ": num_experts_per_tok ",
              m.router.top_k, " exceeds ", key, " ", m.experts);
  ESP_REQUIRE(m.experts <= 4096 && c.num_hidden_layers * (m.experts + 1) <= 262144, FormatError,
              json.where(), ": ", c.num_hidden_layers, " layers of ", m.experts,
              " experts are more than any checkpoint has");
}

ESP_INLINE void read_qwen_sparse_layers(const ConfigReader& json, DecoderConfig& c) {
  const std::int64_t step = json.positive_or("decoder_sparse_step", 1);
  c.mixture.layers.clear();
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) {
    c.mixture.layers.push_back((l + 1) % step == 0);
  }
  if (json.has("mlp_only_layers")) {
    for (const std::int64_t l : json.integers("mlp_only_layers")) {
      if (l >= 0 && l < c.num_hidden_layers) c.mixture.layers[static_cast<std::size_t>(l)] = false;
    }
  }
}

ESP_INLINE void read_first_dense(const ConfigReader& json, std::int64_t fallback,
                                 DecoderConfig& c) {
  const std::int64_t dense =
      json.has("first_k_dense_replace") ? json.integer("first_k_dense_replace") : fallback;
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) c.mixture.layers.push_back(l >= dense);
}

ESP_INLINE void refuse_true(const ConfigReader& json, const std::vector<std::string>& keys,
                            const char* why) {
  for (const std::string& key : keys) {
    ESP_REQUIRE(!json.truth_or(key, false), UnsupportedError, json.where(), ": \"", key,
                "\" is true; ", why);
  }
}

ESP_INLINE double yarn_softmax_scale(const ConfigReader& json) {
  const std::string in = detail::rope_object(json);
  if (in.empty()) return 1;
  const double all_dim = json.number_or(in + "mscale_all_dim", 0);
  if (all_dim == 0 || !json.has(in + "factor")) return 1;
  const double mscale = detail::yarn_mscale(json.number(in + "factor"), all_dim);
  return mscale * mscale;
}

ESP_INLINE void write_qwen_mixture(const DecoderConfig& c, ConfigWriter& to) {
  to.set_integer("num_experts", c.mixture.experts);
  to.set_integer("num_experts_per_tok", c.mixture.router.top_k);
  to.set_integer("moe_intermediate_size", c.mixture.width);
  to.set_truth("norm_topk_prob", c.mixture.router.renormalize);
  to.set_integer("decoder_sparse_step", 1);
  std::vector<std::int64_t> dense;
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) {
    if (!c.has_mixture(l)) dense.push_back(l);
  }
  to.set_integers("mlp_only_layers", dense);
  to.set_number("router_aux_loss_coef", c.router_aux_loss_coef);
}

ESP_INLINE void read_deepseek_mixture(const ConfigReader& json, const Family& family,
                                      DecoderConfig& c) {
  read_mixture(json, family.expert_keys, "moe_intermediate_size", c);
  MixtureConfig& m = c.mixture;
  m.shared_width = m.width * (json.has("n_shared_experts") ? json.integer("n_shared_experts") : 0);
  m.router.scale = json.number_or("routed_scaling_factor", 1);
  m.router.groups = json.positive_or("n_group", 1);
  m.router.top_groups = json.positive_or("topk_group", 1);
  const bool grouped = m.router.groups > 1;
  ESP_REQUIRE(m.experts % m.router.groups == 0 && m.router.top_groups <= m.router.groups,
              FormatError, json.where(), ": ", m.experts, " experts in n_group ", m.router.groups,
              " groups, of which topk_group ", m.router.top_groups,
              " are chosen from: expected equal groups");
  ESP_REQUIRE(!grouped || m.router.top_k <= m.router.top_groups * (m.experts / m.router.groups),
              FormatError, json.where(), ": num_experts_per_tok ", m.router.top_k,
              " exceeds the experts of topk_group ", m.router.top_groups, " groups");
}

ESP_INLINE void read_sigmoid_router(const ConfigReader& json, DecoderConfig& c) {
  c.mixture.selection_bias = true;
  RouterRule& rule = c.mixture.router;
  rule.score = RouterRule::Score::sigmoid;
  rule.group_score = RouterRule::GroupScore::top2_sum;
  rule.renormalize = json.truth_or("norm_topk_prob", true);
  rule.epsilon = 1e-20;
}

ESP_INLINE void write_deepseek_mixture(const DecoderConfig& c, ConfigWriter& to) {
  const MixtureConfig& m = c.mixture;
  to.set_integer("n_routed_experts", m.experts);
  to.set_integer("num_experts_per_tok", m.router.top_k);
  to.set_integer("moe_intermediate_size", m.width);
  to.set_integer("n_shared_experts", m.shared_width / m.width);
  to.set_number("routed_scaling_factor", m.router.scale);
  to.set_integer("n_group", m.router.groups);
  to.set_integer("topk_group", m.router.top_groups);
  to.set_truth("norm_topk_prob", m.router.renormalize);
  std::int64_t dense = 0;
  while (dense < c.num_hidden_layers && !c.has_mixture(dense)) ++dense;
  to.set_integer("first_k_dense_replace", dense);
}

ESP_INLINE void read_latent_attention(const ConfigReader& json, DecoderConfig& c) {
  LatentShape& latent = c.attention.latent;
  latent.q_rank = json.has("q_lora_rank") ? json.positive("q_lora_rank") : 0;
  latent.kv_rank = json.positive_or("kv_lora_rank", 512);
  latent.rope_dim = json.positive_or("qk_rope_head_dim", 64);
  latent.v_dim = json.positive_or("v_head_dim", 128);
  latent.head_dim = json.positive_or("qk_nope_head_dim", 128) + latent.rope_dim;
  ESP_REQUIRE(latent.rope_dim % 2 == 0 && latent.v_dim <= latent.head_dim, UnsupportedError,
              json.where(), ": qk_rope_head_dim ", latent.rope_dim, " and v_head_dim ",
              latent.v_dim, " are not supported; expected an even one, and at most ",
              latent.head_dim);
  c.attention.head_dim = latent.head_dim;
  c.attention.kv_heads = c.attention.heads;
  c.attention.qkv_bias = c.attention.o_bias = json.truth_or("attention_bias", false);
  c.attention.rope.dims = 0;
  c.attention.rope.interleaved = json.truth_or("rope_interleave", true);
  c.attention.scale = yarn_softmax_scale(json) / math::sqrt(static_cast<double>(latent.head_dim));
}

ESP_INLINE void write_latent_attention(const DecoderConfig& c, ConfigWriter& to) {
  const LatentShape& latent = c.attention.latent;
  latent.q_rank > 0 ? to.set_integer("q_lora_rank", latent.q_rank) : to.set_null("q_lora_rank");
  to.set_integer("kv_lora_rank", latent.kv_rank);
  to.set_integer("qk_rope_head_dim", latent.rope_dim);
  to.set_integer("qk_nope_head_dim", latent.nope_dim());
  to.set_integer("v_head_dim", latent.v_dim);
  to.set_integer("head_dim", latent.rope_dim);  // as transformers writes it
  to.set_truth("attention_bias", c.attention.o_bias);
}

ESP_INLINE void write_common_of_mixture(const DecoderConfig& c, const Family& family,
                                        std::string_view dtype, ConfigWriter& to) {
  DecoderConfig with_width = c;
  with_width.intermediate_size = c.mixture.width;
  write_common(with_width, family, dtype, to);
}

ESP_INLINE void write_window(const DecoderConfig& c, ConfigWriter& to) {
  c.attention.window > 0 ? to.set_integer("sliding_window", c.attention.window)
                         : to.set_null("sliding_window");
}

ESP_INLINE void write_common(const DecoderConfig& c, const Family& family, std::string_view dtype,
                             ConfigWriter& to) {
  const auto token = [&](const char* key, std::int32_t id) {
    id < 0 ? to.set_null(key) : to.set_integer(key, id);
  };
  const AttentionConfig& a = c.attention;
  to.set_texts("architectures", {family.architecture});
  to.set_number("attention_dropout", 0.0);
  token("bos_token_id", c.bos_token_id);
  if (c.eos_token_ids.size() > 1) {
    to.set_integers("eos_token_id", {c.eos_token_ids.begin(), c.eos_token_ids.end()});
  } else {
    token("eos_token_id", c.eos_token_ids.empty() ? -1 : c.eos_token_ids[0]);
  }
  token("pad_token_id", c.pad_token_id);
  to.set_integer("head_dim", a.head_dim);
  to.set_text("hidden_act", "silu");
  to.set_integer("hidden_size", c.hidden_size);
  to.set_number("initializer_range", c.initializer_range);
  to.set_integer("intermediate_size", c.intermediate_size);
  to.set_integer("max_position_embeddings", c.max_position_embeddings);
  to.set_text("model_type", family.model_type);
  to.set_integer("num_attention_heads", a.heads);
  to.set_integer("num_hidden_layers", c.num_hidden_layers);
  to.set_integer("num_key_value_heads", a.kv_heads);
  to.set_number("rms_norm_eps", c.rms_norm_eps);
  const RopeConfig& rope = a.rope;
  if (rope.scaling != RopeConfig::Scaling::none) {
    const bool yarn = rope.scaling == RopeConfig::Scaling::yarn;
    const bool llama3 = rope.scaling == RopeConfig::Scaling::llama3;
    to.set_text("rope_scaling.rope_type", yarn ? "yarn" : llama3 ? "llama3" : "linear");
    to.set_number("rope_scaling.factor", rope.factor);
    if (yarn || llama3) {
      to.set_integer("rope_scaling.original_max_position_embeddings", rope.original_positions);
    }
    if (yarn) {
      to.set_number("rope_scaling.beta_fast", rope.beta_fast);
      to.set_number("rope_scaling.beta_slow", rope.beta_slow);
      to.set_truth("rope_scaling.truncate", rope.truncate);
      to.set_number("rope_scaling.attention_factor", rope.attention_factor);
    }
    if (llama3) {
      to.set_number("rope_scaling.low_freq_factor", rope.low_freq_factor);
      to.set_number("rope_scaling.high_freq_factor", rope.high_freq_factor);
    }
  }
  to.set_number("rope_theta", rope.theta);
  to.set_truth("tie_word_embeddings", c.tie_word_embeddings);
  to.set_text("torch_dtype", dtype);
  to.set_truth("use_cache", true);
  to.set_integer("vocab_size", c.vocab_size);
}

}  // namespace espalier::families
#endif
