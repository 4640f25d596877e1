// SPDX-License-Identifier: Apache-2.0
// adapter_config.json of PEFT: scale and modules of a LoRA adapter. Settings that would change the
// numbers and are not implemented (DoRA, biases, initialisations that alter the base weights) are
// refused in one line; other keys are ignored, as in PEFT.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/adapter_config.hpp is host-only; include it from a .cpp"
#endif

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <espalier/core/inline.hpp>
#include <espalier/io/json.hpp>
#include <espalier/io/module_pattern.hpp>

namespace espalier::io {

struct AdapterConfig {
  std::string base_model;  // base_model_name_or_path; may be empty
  std::int64_t r = 8;
  double alpha = 8;
  double dropout = 0;
  bool rslora = false;
  /// "q_proj", "w1", ... or one regular expression. An entry that ends in ".weight" is a matrix
  /// that PEFT addresses as a parameter; the file lists it under target_parameters.
  std::vector<std::string> target_modules;
  /// Module pattern -> value; the first match counts.
  std::vector<std::pair<ModulePattern, std::int64_t>> rank_pattern;
  std::vector<std::pair<ModulePattern, double>> alpha_pattern;

  std::int64_t rank_of(const std::string& module) const {
    const auto* hit = first_match(rank_pattern, module);
    return hit == nullptr ? r : hit->second;
  }
  double alpha_of(const std::string& module) const {
    const auto* hit = first_match(alpha_pattern, module);
    return hit == nullptr ? alpha : hit->second;
  }
  /// Factor of B A for a module whose A has `rank` rows.
  double scale(const std::string& module, std::int64_t rank) const {
    const auto n = static_cast<double>(rank);
    return alpha_of(module) / (rslora ? std::sqrt(n) : n);
  }

 private:
  template <class Value>
  static const std::pair<ModulePattern, Value>* first_match(
      const std::vector<std::pair<ModulePattern, Value>>& patterns, const std::string& module) {
    for (const auto& entry : patterns) {
      if (entry.first.matches(module)) return &entry;
    }
    return nullptr;
  }
};

namespace detail {

class AdapterConfigReader {
 public:
  explicit AdapterConfigReader(const Json& json) : json_(json) {}

  AdapterConfig read() const {
    const std::string& type = json_.at("peft_type").as_string();
    ESP_REQUIRE(type == "LORA", FormatError, json_.at("peft_type").where(), ": \"", type,
                "\" is not supported; expected \"LORA\"");
    refuse_unsupported();
    AdapterConfig c;
    if (const Json* v = json_.find_value("base_model_name_or_path")) c.base_model = v->as_string();
    if (const Json* v = json_.find_value("r")) c.r = rank(*v);
    if (const Json* v = json_.find_value("lora_alpha")) c.alpha = alpha(*v);
    if (const Json* v = json_.find_value("lora_dropout")) c.dropout = v->as_double();
    ESP_REQUIRE(c.dropout >= 0 && c.dropout < 1, FormatError, json_.where(),
                ": \"lora_dropout\" is ", c.dropout, ", expected at least 0 and less than 1");
    c.rslora = truth("use_rslora");
    if (const Json* v = json_.find_value("target_modules")) c.target_modules = texts(*v);
    if (const Json* v = json_.find_value("target_parameters")) {
      for (const std::string& name : parameters(*v)) c.target_modules.push_back(name);
    }
    if (const Json* v = json_.find_value("rank_pattern")) {
      for (const Json::Member& m : v->members()) {
        c.rank_pattern.emplace_back(pattern(m), rank(m.value));
      }
    }
    if (const Json* v = json_.find_value("alpha_pattern")) {
      for (const Json::Member& m : v->members()) {
        c.alpha_pattern.emplace_back(pattern(m), alpha(m.value));
      }
    }
    return c;
  }

 private:
  bool truth(const char* key) const {
    const Json* v = json_.find_value(key);
    return v != nullptr && v->as_bool();
  }
  static std::int64_t rank(const Json& v) {
    const std::int64_t r = v.as_int();
    ESP_REQUIRE(r >= 1 && r <= 1 << 20, FormatError, v.where(), ": rank ", r,
                " is out of range, expected at least 1");
    return r;
  }
  static double alpha(const Json& v) {
    const double a = v.as_double();
    ESP_REQUIRE(std::abs(a) <= 1e9, FormatError, v.where(), ": alpha ", a,
                " is out of range, expected at most 1e9");
    return a;
  }
  static std::vector<std::string> texts(const Json& v) {
    if (v.is_string()) return {v.as_string()};
    std::vector<std::string> list;
    for (const Json& item : v.items()) list.push_back(item.as_string());
    return list;
  }
  /// The weight of a module, addressed as a parameter, has the factors of the module. Other
  /// parameters are fused experts of a layer.
  static std::vector<std::string> parameters(const Json& v) {
    std::vector<std::string> names = texts(v);
    for (const std::string& name : names) {
      ESP_REQUIRE(
          name.ends_with(".weight"), FormatError, v.where(), ": \"", name,
          "\" is not supported; expected null or names that end in .weight (this is the "
          "layout of transformers 5; convert_adapter turns it into one adapter per expert)");
    }
    return names;
  }
  static ModulePattern pattern(const Json::Member& m) {
    return {m.key, m.value.where() + ": the pattern"};
  }

  void refuse_unsupported() const {
    for (const char* key :
         {"use_dora", "use_qalora", "use_bdlora", "fan_in_fan_out", "lora_bias"}) {
      ESP_REQUIRE(!truth(key), FormatError, json_.at(key).where(),
                  ": true is not supported; expected a plain LoRA adapter");
    }
    if (const Json* v = json_.find_value("bias")) {
      ESP_REQUIRE(v->as_string() == "none", FormatError, v->where(), ": \"", v->as_string(),
                  "\" is not supported; expected \"none\"");
    }
    for (const char* key : {"modules_to_save", "layer_replication", "trainable_token_indices",
                            "alora_invocation_tokens"}) {
      const Json* v = json_.find_value(key);
      ESP_REQUIRE(v == nullptr || ((v->is_array() || v->is_object()) && v->size() == 0),
                  FormatError, v->where(), ": is not supported; expected null");
    }
    const Json* init = json_.find_value("init_lora_weights");
    if (init == nullptr || !init->is_string()) return;
    for (const char* changes_base : {"pissa", "olora", "corda", "loftq", "lora_ga"}) {
      ESP_REQUIRE(init->as_string().rfind(changes_base, 0) != 0, FormatError, init->where(), ": \"",
                  init->as_string(),
                  "\" alters the base weights, which is not supported; convert it to a plain LoRA "
                  "adapter with PEFT first");
    }
  }

  const Json& json_;
};

}  // namespace detail

/// @throws FormatError naming the key
[[nodiscard]] ESP_INLINE AdapterConfig parse_adapter_config(const Json& json) {
  return detail::AdapterConfigReader(json).read();
}

/// The keys that every PEFT since 0.6 reads, in PEFT's order; target_parameters, new in 0.17, only
/// if there are any.
[[nodiscard]] ESP_INLINE Json adapter_config_json(const AdapterConfig& c) {
  const auto number = [](double v) {
    const bool whole = v == std::floor(v) && std::abs(v) < 9e15;
    return whole ? Json(static_cast<std::int64_t>(v)) : Json(v);
  };
  Json j = Json::object();
  j["alpha_pattern"] = Json::object();
  for (const auto& [pattern, alpha] : c.alpha_pattern) {
    j["alpha_pattern"][pattern.text()] = number(alpha);
  }
  j["base_model_name_or_path"] = c.base_model.empty() ? Json() : Json(c.base_model);
  j["bias"] = "none";
  j["fan_in_fan_out"] = false;
  j["inference_mode"] = true;
  j["init_lora_weights"] = true;
  j["layers_pattern"] = Json();
  j["layers_to_transform"] = Json();
  j["lora_alpha"] = number(c.alpha);
  j["lora_dropout"] = c.dropout;
  j["modules_to_save"] = Json();
  j["peft_type"] = "LORA";
  j["r"] = c.r;
  j["rank_pattern"] = Json::object();
  for (const auto& [pattern, rank] : c.rank_pattern) j["rank_pattern"][pattern.text()] = rank;
  std::vector<std::string> modules, parameters;
  for (const std::string& name : c.target_modules) {
    (name.ends_with(".weight") ? parameters : modules).push_back(name);
  }
  j["target_modules"] = Json::array(modules);
  if (!parameters.empty()) j["target_parameters"] = Json::array(parameters);
  j["task_type"] = "CAUSAL_LM";
  j["use_rslora"] = c.rslora;
  return j;
}

}  // namespace espalier::io
