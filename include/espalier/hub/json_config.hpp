// SPDX-License-Identifier: Apache-2.0
// Reads and writes config.json of a Hugging Face folder: the family, and the numbers of its model.
#pragma once

#ifdef __CUDACC__
#error "espalier/hub/json_config.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <filesystem>

#include <espalier/core/dtype.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/io/json.hpp>
#include <espalier/models/families/registry.hpp>

namespace espalier::hub {

/// Finds the family of a model_type.
/// @throws FormatError with the reason for an unknown or a refused model_type
[[nodiscard]] const Family& family_of(const io::Json& config);

/// Reads every number that a forward pass needs.
/// @throws FormatError naming the key; UnsupportedError naming a model_type without a forward pass
[[nodiscard]] DecoderConfig parse_config(const io::Json& config);

/// Reads `folder`/config.json, and adds the end-of-text ids of generation_config.json.
[[nodiscard]] DecoderConfig load_config(const std::filesystem::path& folder);

/// Writes a config.json that transformers 4 and 5 load.
/// @throws UsageError for a family without a writer
[[nodiscard]] io::Json config_json(const DecoderConfig& c, DType dtype);

/// Finds the value at a path of keys, "text_config.num_experts"; nullptr if a key is missing.
[[nodiscard]] const io::Json* find_path(const io::Json& json, std::string_view path);

/// Reads one id, a list of ids, or null (no id).
[[nodiscard]] std::vector<std::int32_t> token_ids(const io::Json* v);

}  // namespace espalier::hub

#ifdef ESP_BODIES
namespace espalier::hub {

namespace detail {

class JsonConfigReader final : public ConfigReader {
 public:
  explicit JsonConfigReader(const io::Json& json) : json_(json) {}

  bool present(std::string_view key) const override { return find_path(json_, key) != nullptr; }
  bool has(std::string_view key) const override {
    const io::Json* v = find_path(json_, key);
    return v != nullptr && !v->is_null();
  }
  double number(std::string_view key) const override { return at(key).as_double(); }
  std::int64_t integer(std::string_view key) const override { return at(key).as_int(); }
  bool truth(std::string_view key) const override { return at(key).as_bool(); }
  std::string text(std::string_view key) const override { return at(key).as_string(); }
  std::vector<std::int64_t> integers(std::string_view key) const override {
    const io::Json& v = at(key);
    if (v.is_null()) return {};
    if (!v.is_array()) return {v.as_int()};
    std::vector<std::int64_t> list;
    for (const io::Json& item : v.items()) list.push_back(item.as_int());
    return list;
  }
  std::vector<std::string> texts(std::string_view key) const override {
    std::vector<std::string> list;
    for (const io::Json& item : at(key).items()) list.push_back(item.as_string());
    return list;
  }
  std::string where(std::string_view key) const override {
    const io::Json* v = key.empty() ? &json_ : find_path(json_, key);
    return v == nullptr ? json_.where() : v->where();
  }

 private:
  const io::Json& at(std::string_view key) const {
    const io::Json* v = find_path(json_, key);
    return v == nullptr ? json_.at(key) : *v;
  }
  const io::Json& json_;
};

class JsonConfigWriter final : public ConfigWriter {
 public:
  void set_null(std::string_view key) override { at(key) = io::Json(); }
  void set_truth(std::string_view key, bool value) override { at(key) = value; }
  void set_integer(std::string_view key, std::int64_t value) override { at(key) = value; }
  void set_number(std::string_view key, double value) override { at(key) = value; }
  void set_text(std::string_view key, std::string_view value) override { at(key) = value; }
  void set_integers(std::string_view key, const std::vector<std::int64_t>& values) override {
    at(key) = io::Json::array(values);
  }
  void set_texts(std::string_view key, const std::vector<std::string>& values) override {
    at(key) = io::Json::array(values);
  }
  /// Sorts the keys by name, as transformers does, but keeps the ids of special tokens together.
  io::Json sorted() const {
    std::vector<std::pair<std::string, std::string>> order;
    for (const io::Json::Member& m : json_.members()) {
      order.emplace_back(m.key == "pad_token_id" ? "eos_token_id." : m.key, m.key);
    }
    std::sort(order.begin(), order.end());
    io::Json out = io::Json::object();
    for (const auto& [rank, key] : order) out[key] = json_.at(key);
    return out;
  }

 private:
  io::Json& at(std::string_view path) {
    const std::size_t dot = path.find('.');
    if (dot == std::string_view::npos) return json_[path];
    return json_[path.substr(0, dot)][path.substr(dot + 1)];
  }
  io::Json json_ = io::Json::object();
};

}  // namespace detail

ESP_INLINE const io::Json* find_path(const io::Json& json, std::string_view path) {
  const io::Json* v = &json;
  while (v != nullptr && !path.empty()) {
    const std::size_t dot = std::min(path.find('.'), path.size());
    v = v->is_object() ? v->find(path.substr(0, dot)) : nullptr;
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return v;
}

ESP_INLINE std::vector<std::int32_t> token_ids(const io::Json* v) {
  std::vector<std::int32_t> ids;
  const auto add = [&](const io::Json& id) {
    ESP_REQUIRE(id.as_int() >= -1 && id.as_int() <= 0x7fffffff, FormatError, id.where(), ": ",
                id.as_int(), " is not a token id");
    ids.push_back(static_cast<std::int32_t>(id.as_int()));
  };
  if (v == nullptr || v->is_null()) return ids;
  if (!v->is_array()) {
    add(*v);
    return ids;
  }
  for (const io::Json& id : v->items()) add(id);
  return ids;
}

ESP_INLINE const Family& family_of(const io::Json& config) {
  const io::Json& type = config.at("model_type");
  const Family* family = find_family(type.as_string());
  ESP_REQUIRE(family != nullptr, FormatError, type.where(), ": \"", type.as_string(),
              "\" is not a known family; there are ", known_families());
  ESP_REQUIRE(family->refusal.empty(), FormatError, type.where(), ": \"", type.as_string(),
              "\" is not supported: ", family->refusal);
  return *family;
}

ESP_INLINE DecoderConfig parse_config(const io::Json& config) {
  const Family& family = family_of(config);
  ESP_REQUIRE(family.read != nullptr, UnsupportedError, config.at("model_type").where(), ": \"",
              family.model_type,
              "\" can be inspected, pruned and verified, but its forward pass is not there; it is "
              "for ",
              computed_families());
  return family.read(detail::JsonConfigReader(config));
}

ESP_INLINE DecoderConfig load_config(const std::filesystem::path& folder) {
  DecoderConfig config = parse_config(io::read_json(folder / "config.json"));
  const std::filesystem::path generation = folder / "generation_config.json";
  if (std::filesystem::exists(generation)) {
    const io::Json json = io::read_json(generation);
    for (const std::int32_t id : token_ids(json.find("eos_token_id"))) {
      auto& ids = config.eos_token_ids;
      if (std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
    }
  }
  return config;
}

ESP_INLINE io::Json config_json(const DecoderConfig& c, DType dtype) {
  const Family* family = find_family(c.model_type);
  ESP_REQUIRE(family != nullptr && family->write != nullptr, UsageError, "config.json of a ",
              c.model_type, " cannot be written");
  detail::JsonConfigWriter writer;
  family->write(c,
                dtype == DType::bf16  ? "bfloat16"
                : dtype == DType::f16 ? "float16"
                                      : "float32",
                writer);
  return writer.sorted();
}

}  // namespace espalier::hub
#endif
