// SPDX-License-Identifier: Apache-2.0
// The settings beside a tokenizer file: tokenizer_config.json, special_tokens_map.json,
// config.json. They name the special tokens; the first file that names one wins. (Includes io/:
// JSON.)
#pragma once

#ifdef __CUDACC__
#error "espalier/text/special_tokens.hpp is host-only; include it from a .cpp"
#endif

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/io/json.hpp>
#include <espalier/text/added_tokens.hpp>
#include <espalier/text/tokenizer_json.hpp>

namespace espalier::text {

/// The settings beside a tokenizer; every part may be missing.
class TokenizerFolder {
 public:
  ESP_INLINE explicit TokenizerFolder(const std::filesystem::path& folder)
      : tokenizer_config_(read_if_there(folder / "tokenizer_config.json")),
        special_tokens_map_(read_if_there(folder / "special_tokens_map.json")),
        config_(read_if_there(folder / "config.json")),
        added_tokens_(read_if_there(folder / "added_tokens.json")) {}

  /// The text of "bos_token", "eos_token", "pad_token" or "unk_token".
  ESP_INLINE std::optional<std::string> token_text(std::string_view role) const {
    for (const io::Json* file : {&tokenizer_config_, &special_tokens_map_}) {
      const io::Json* token = file->is_null() ? nullptr : file->find_value(role);
      if (token == nullptr) continue;
      return token->is_object() ? token->at("content").as_string() : token->as_string();
    }
    return std::nullopt;
  }

  /// The id that config.json gives for a role; the first where it lists several.
  ESP_INLINE std::optional<std::int32_t> configured_id(std::string_view role) const {
    const std::string key = std::string(role) + "_id";
    const io::Json* id = config_.is_null() ? nullptr : config_.find_value(key);
    if (id != nullptr && id->is_array()) id = id->size() == 0 ? nullptr : &id->at(0);
    if (id == nullptr) return std::nullopt;
    const std::int64_t value = id->as_int();
    if (value < 0) return std::nullopt;  // some configs use -1 for none
    ESP_REQUIRE(value < (std::int64_t{1} << 31), FormatError, id->where(), ": id ", value,
                ", expected below 2^31");
    return static_cast<std::int32_t>(value);
  }

  bool flag(std::string_view key, bool otherwise) const {
    return tokenizer_config_.is_null() ? otherwise
                                       : detail::bool_or(tokenizer_config_, key, otherwise);
  }

  /// Added tokens of a folder whose tokenizer file cannot hold them (`tokenizer.model`).
  ESP_INLINE std::vector<AddedToken> added_tokens() const {
    std::vector<AddedToken> tokens;
    const io::Json* listed = tokenizer_config_.is_null()
                                 ? nullptr
                                 : tokenizer_config_.find_value("added_tokens_decoder");
    if (listed != nullptr) {
      for (const auto& [id, token] : listed->members()) {
        std::uint64_t value = 0;
        const auto [end, error] = std::from_chars(id.data(), id.data() + id.size(), value);
        ESP_REQUIRE(error == std::errc() && end == id.data() + id.size(), FormatError,
                    token.where(), ": key '", id, "' is not an id");
        tokens.push_back(detail::parse_added_token(token, value));
      }
    } else if (!added_tokens_.is_null()) {
      for (const auto& [content, id] : added_tokens_.members()) {
        const std::uint64_t value = id.as_uint();
        ESP_REQUIRE(value < (std::uint64_t{1} << 31), FormatError, id.where(), ": id ", value,
                    ", expected below 2^31");
        tokens.push_back({.content = content, .id = static_cast<std::int32_t>(value)});
      }
    }
    return tokens;
  }

 private:
  static io::Json read_if_there(const std::filesystem::path& path) {
    std::error_code ignored;
    return std::filesystem::exists(path, ignored) ? io::read_json(path) : io::Json();
  }

  io::Json tokenizer_config_, special_tokens_map_, config_, added_tokens_;
};

}  // namespace espalier::text
