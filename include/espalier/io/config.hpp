// SPDX-License-Identifier: Apache-2.0
// config.json of a Mixtral or (dense) Llama checkpoint to MixtralConfig. Both spellings of the rope
// base are read: `rope_theta` (transformers 4) and `rope_parameters.rope_theta` (5). Whatever would
// change the numbers and is not implemented is refused in one line.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/config.hpp is host-only; include it from a .cpp"
#endif

#include <cmath>

#include <espalier/core/dtype.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/io/json.hpp>
#include <espalier/models/mixtral_config.hpp>

namespace espalier::io {

namespace detail {

class ConfigReader {
 public:
  explicit ConfigReader(const Json& json) : json_(json) {}

  MixtralConfig read() const {
    MixtralConfig c;
    c.model_type = json_.at("model_type").as_string();
    const bool dense = c.model_type == "llama";
    ESP_REQUIRE(dense || c.model_type == "mixtral", FormatError, json_.at("model_type").where(),
                ": \"", c.model_type,
                "\" is not supported; expected \"mixtral\", or \"llama\" for a dense model");
    refuse_unsupported();
    c.hidden_size = positive("hidden_size");
    c.intermediate_size = positive("intermediate_size");
    c.num_hidden_layers = positive("num_hidden_layers");
    c.vocab_size = positive("vocab_size");
    c.num_local_experts = dense ? 0 : positive("num_local_experts");
    c.num_experts_per_tok = dense ? 0 : positive("num_experts_per_tok");
    read_heads(c, dense);
    c.max_position_embeddings = positive_or("max_position_embeddings", dense ? 2048 : 131072);
    const Json* window = json_.find_value("sliding_window");
    c.sliding_window = window && !dense ? positive("sliding_window") : 0;
    c.rms_norm_eps = number_or(json_, "rms_norm_eps", dense ? 1e-6 : 1e-5);
    c.rope_theta = rope_theta(dense ? 1e4 : 1e6);
    c.router_aux_loss_coef = number_or(json_, "router_aux_loss_coef", 0.001);
    c.initializer_range = number_or(json_, "initializer_range", 0.02);
    const Json* tied = json_.find_value("tie_word_embeddings");
    c.tie_word_embeddings = tied != nullptr && tied->as_bool();
    c.bos_token_id = json_.find("bos_token_id") ? token("bos_token_id") : 1;
    c.pad_token_id = token("pad_token_id");
    c.eos_token_ids = json_.find("eos_token_id") ? tokens(json_.find("eos_token_id"))
                                                 : std::vector<std::int32_t>{2};
    check_sizes(c);
    return c;
  }

  /// One id, a list of them, or null.
  static std::vector<std::int32_t> tokens(const Json* v) {
    std::vector<std::int32_t> ids;
    if (v == nullptr || v->is_null()) return ids;
    if (!v->is_array()) return {token_id(*v)};
    for (const Json& id : v->items()) ids.push_back(token_id(id));
    return ids;
  }

 private:
  void refuse_unsupported() const {
    for (const char* key : {"attention_bias", "mlp_bias"}) {
      const Json* v = json_.find_value(key);
      ESP_REQUIRE(v == nullptr || !v->as_bool(), FormatError, json_.where(), ": \"", key,
                  "\" is true; biases are not supported");
    }
    const Json* act = json_.find_value("hidden_act");
    ESP_REQUIRE(act == nullptr || act->as_string() == "silu", FormatError, act->where(), ": \"",
                act->as_string(), "\" is not supported; expected \"silu\"");
    ESP_REQUIRE(json_.find_value("quantization_config") == nullptr, FormatError, json_.where(),
                ": \"quantization_config\": quantized checkpoints are not supported; use the "
                "bf16, f16 or f32 one");
    for (const char* key : {"rope_scaling", "rope_parameters"}) {
      const Json* rope = json_.find_value(key);
      for (const char* type : {"rope_type", "type"}) {
        const Json* v = rope ? rope->find_value(type) : nullptr;
        ESP_REQUIRE(v == nullptr || v->as_string() == "default", FormatError, v->where(),
                    ": rope scaling \"", v->as_string(),
                    "\" is not supported; expected \"default\" or null");
      }
    }
  }

  void read_heads(MixtralConfig& c, bool dense) const {
    c.num_attention_heads = positive("num_attention_heads");
    c.num_key_value_heads = positive_or("num_key_value_heads", dense ? c.num_attention_heads : 8);
    ESP_REQUIRE(c.num_attention_heads % c.num_key_value_heads == 0, FormatError, json_.where(),
                ": num_attention_heads ", c.num_attention_heads,
                " is not a multiple of num_key_value_heads ", c.num_key_value_heads);
    if (json_.find_value("head_dim")) {
      c.head_dim = positive("head_dim");
    } else {
      ESP_REQUIRE(c.hidden_size % c.num_attention_heads == 0, FormatError, json_.where(),
                  ": hidden_size ", c.hidden_size, " is not a multiple of num_attention_heads ",
                  c.num_attention_heads, ", and there is no head_dim");
      c.head_dim = c.hidden_size / c.num_attention_heads;
    }
    ESP_REQUIRE(c.head_dim % 2 == 0, FormatError, json_.where(), ": head_dim ", c.head_dim,
                " is odd; rotary embeddings need an even one");
  }

  void check_sizes(const MixtralConfig& c) const {
    ESP_REQUIRE(c.num_experts_per_tok <= c.num_local_experts, FormatError, json_.where(),
                ": num_experts_per_tok ", c.num_experts_per_tok, " exceeds num_local_experts ",
                c.num_local_experts);
    // What no checkpoint reaches; the lists that are made from these numbers stay small.
    ESP_REQUIRE(c.num_hidden_layers <= 4096 && c.num_local_experts <= 4096 &&
                    c.num_hidden_layers * (c.num_local_experts + 1) <= 262144,
                FormatError, json_.where(), ": ", c.num_hidden_layers, " layers of ",
                c.num_local_experts, " experts are more than any checkpoint has");
    ESP_REQUIRE(std::isfinite(c.rope_theta) && c.rope_theta > 0 && c.rms_norm_eps >= 0, FormatError,
                json_.where(), ": rope_theta ", c.rope_theta, " and rms_norm_eps ", c.rms_norm_eps,
                ", expected positive numbers");
  }

  double rope_theta(double fallback) const {
    const Json* parameters = json_.find_value("rope_parameters");
    if (parameters != nullptr && parameters->find_value("rope_theta")) {
      return number_or(*parameters, "rope_theta", fallback);
    }
    return number_or(json_, "rope_theta", fallback);
  }
  static double number_or(const Json& json, const char* key, double fallback) {
    const Json* v = json.find_value(key);
    return v == nullptr ? fallback : v->as_double();
  }
  std::int64_t positive(const char* key) const {
    const Json& v = json_.at(key);
    const std::int64_t n = v.as_int();
    ESP_REQUIRE(n > 0 && n <= 0x7fffffff, FormatError, v.where(),
                ": expected 1 to 2147483647, found ", n);
    return n;
  }
  std::int64_t positive_or(const char* key, std::int64_t fallback) const {
    return json_.find_value(key) == nullptr ? fallback : positive(key);
  }
  std::int32_t token(const char* key) const {
    const Json* v = json_.find_value(key);
    return v == nullptr ? -1 : token_id(*v);
  }
  static std::int32_t token_id(const Json& v) {
    const std::int64_t id = v.as_int();
    ESP_REQUIRE(id >= -1 && id <= 0x7fffffff, FormatError, v.where(), ": ", id,
                " is not a token id");
    return static_cast<std::int32_t>(id);
  }

  const Json& json_;
};

}  // namespace detail

/// @throws FormatError naming the key
[[nodiscard]] ESP_INLINE MixtralConfig parse_config(const Json& json) {
  return detail::ConfigReader(json).read();
}

/// config.json of a Mixtral-layout model as transformers (4 and 5) loads it.
[[nodiscard]] ESP_INLINE Json mixtral_config_json(const MixtralConfig& c, DType dtype) {
  const auto token = [](std::int32_t id) { return id < 0 ? Json() : Json(id); };
  Json j = Json::object();
  j["architectures"] = Json::array(std::vector<const char*>{"MixtralForCausalLM"});
  j["attention_dropout"] = 0.0;
  j["bos_token_id"] = token(c.bos_token_id);
  j["eos_token_id"] = c.eos_token_ids.empty()       ? Json()
                      : c.eos_token_ids.size() == 1 ? Json(c.eos_token_ids[0])
                                                    : Json::array(c.eos_token_ids);
  j["pad_token_id"] = token(c.pad_token_id);
  j["head_dim"] = c.head_dim;
  j["hidden_act"] = "silu";
  j["hidden_size"] = c.hidden_size;
  j["initializer_range"] = c.initializer_range;
  j["intermediate_size"] = c.intermediate_size;
  j["max_position_embeddings"] = c.max_position_embeddings;
  j["model_type"] = "mixtral";
  j["num_attention_heads"] = c.num_attention_heads;
  j["num_experts_per_tok"] = c.num_experts_per_tok;
  j["num_hidden_layers"] = c.num_hidden_layers;
  j["num_key_value_heads"] = c.num_key_value_heads;
  j["num_local_experts"] = c.num_local_experts;
  j["output_router_logits"] = false;
  j["rms_norm_eps"] = c.rms_norm_eps;
  j["rope_theta"] = c.rope_theta;
  j["router_aux_loss_coef"] = c.router_aux_loss_coef;
  j["router_jitter_noise"] = 0.0;
  j["sliding_window"] = c.sliding_window > 0 ? Json(c.sliding_window) : Json();
  j["tie_word_embeddings"] = c.tie_word_embeddings;
  j["torch_dtype"] = dtype == DType::bf16  ? "bfloat16"
                     : dtype == DType::f16 ? "float16"
                                           : "float32";
  j["use_cache"] = true;
  j["vocab_size"] = c.vocab_size;
  return j;
}

/// Reads `folder`/config.json; ids that generation_config.json names as end of text are added.
[[nodiscard]] ESP_INLINE MixtralConfig load_config(const std::filesystem::path& folder) {
  MixtralConfig config = parse_config(read_json(folder / "config.json"));
  const std::filesystem::path generation = folder / "generation_config.json";
  if (std::filesystem::exists(generation)) {
    const Json json = read_json(generation);
    for (const std::int32_t id : detail::ConfigReader::tokens(json.find("eos_token_id"))) {
      auto& ids = config.eos_token_ids;
      if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
    }
  }
  return config;
}

}  // namespace espalier::io
