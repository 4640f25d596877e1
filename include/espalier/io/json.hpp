// SPDX-License-Identifier: Apache-2.0
// Parses JSON with simdjson: strict RFC 8259, UTF-8 checked, one document per text. Duplicate keys
// are refused, because readers disagree about which one counts. Nesting is limited to 256 levels;
// an integer beyond 64 bits becomes a double (tokenizer_config.json writes
// 1000000000000000019884624838656 for "no limit").
#pragma once

#ifdef __CUDACC__
#error "espalier/io/json.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <string>
#include <string_view>

#include <espalier/core/inline.hpp>
#include <espalier/io/file.hpp>
#include <espalier/io/json_dump.hpp>
#include <espalier/io/json_value.hpp>

namespace espalier::io {

/// @throws FormatError naming `source` and what is wrong.
[[nodiscard]] Json parse_json(std::string_view text, std::string source);
[[nodiscard]] Json read_json(const std::filesystem::path& path);

}  // namespace espalier::io

#ifdef ESP_BODIES
#include <algorithm>
#include <numeric>

#include <simdjson.h>

namespace espalier::io {

class JsonReader {
 public:
  static constexpr int kMaxDepth = 256;

  JsonReader(std::string_view text, std::string source)
      : text_(text), origin_(std::make_shared<detail::JsonOrigin>()) {
    origin_->source = std::move(source);
  }

  Json read() {
    simdjson::dom::parser parser;
    simdjson::dom::element root;
    simdjson::error_code error = parser.parse(text_.data(), text_.size()).get(root);
    std::string rewritten;
    if (error == simdjson::NUMBER_ERROR) {
      rewritten = with_long_integers_as_doubles();
      error = parser.parse(rewritten).get(root);
    }
    if (error != simdjson::SUCCESS) fail(error);
    origin_->steps.push_back({0, 0, {}, false});
    return convert(root, 0, 0);
  }

 private:
  [[noreturn]] void fail(simdjson::error_code error) const {
    if (error == simdjson::UTF8_ERROR) {
      std::size_t i = 0;
      for (std::size_t n = 1; i < text_.size() && n > 0; i += n) {
        n = detail::utf8_step(text_, i).length;
      }
      throw FormatError(espalier::detail::concat(
          {origin_->source, ": byte ", i, " is not UTF-8; JSON must be UTF-8"}));
    }
    std::string message = simdjson::error_message(error);
    while (!message.empty() && (message.back() == '.' || message.back() == ' ')) message.pop_back();
    throw FormatError(espalier::detail::concat({origin_->source, ": not valid JSON: ", message}));
  }

  /// Adds "e0" to integers of 19 digits and more outside strings.
  std::string with_long_integers_as_doubles() const {
    const auto digit = [&](std::size_t k) {
      return k < text_.size() && text_[k] >= '0' && text_[k] <= '9';
    };
    std::string out;
    bool in_string = false;
    for (std::size_t i = 0; i < text_.size();) {
      if (in_string || !digit(i)) {
        if (in_string && text_[i] == '\\' && i + 1 < text_.size())
          out += text_[i++];
        else if (text_[i] == '"')
          in_string = !in_string;
        out += text_[i++];
        continue;
      }
      std::size_t end = i;
      bool integer = true;
      for (; end < text_.size() &&
             std::string_view("0123456789.eE+-").find(text_[end]) != std::string_view::npos;
           ++end) {
        integer = integer && digit(end);
      }
      out += text_.substr(i, end - i);
      if (integer && end - i >= 19) out += "e0";
      i = end;
    }
    return out;
  }

  std::uint32_t add_step(std::uint32_t parent, std::size_t index, std::string_view key,
                         bool in_array) {
    origin_->steps.push_back(
        {parent, static_cast<std::uint32_t>(index), std::string(key), in_array});
    return static_cast<std::uint32_t>(origin_->steps.size() - 1);
  }

  Json convert(const simdjson::dom::element& e, std::uint32_t step, int depth) {
    ESP_REQUIRE(depth < kMaxDepth, FormatError, origin_->source, ": nested deeper than ", kMaxDepth,
                " levels");
    Json v;
    using Type = simdjson::dom::element_type;
    switch (e.type()) {
      case Type::NULL_VALUE:
        break;
      case Type::BOOL:
        v = Json(static_cast<bool>(e));
        break;
      case Type::INT64:
        v = Json(static_cast<std::int64_t>(e));
        break;
      case Type::UINT64:
        v = Json(static_cast<std::uint64_t>(e));
        break;
      case Type::DOUBLE:
        v = Json(static_cast<double>(e));
        break;
      case Type::STRING:
        v = Json(static_cast<std::string_view>(e));
        break;
      case Type::ARRAY:
        v = array(static_cast<simdjson::dom::array>(e), step, depth);
        break;
      case Type::OBJECT:
        v = object(static_cast<simdjson::dom::object>(e), step, depth);
        break;
    }
    v.origin_ = origin_;
    v.step_ = step;
    return v;
  }

  Json array(const simdjson::dom::array& a, std::uint32_t step, int depth) {
    Json v = Json::array();
    auto& items = std::get<Json::Array>(v.value_);
    items.reserve(a.size());
    for (const simdjson::dom::element e : a) {
      items.push_back(convert(e, add_step(step, items.size(), {}, true), depth + 1));
    }
    return v;
  }

  Json object(const simdjson::dom::object& o, std::uint32_t step, int depth) {
    Json v = Json::object();
    auto& made = std::get<Json::Object>(v.value_);
    made.members.reserve(o.size());
    for (const simdjson::dom::key_value_pair pair : o) {
      const std::uint32_t child = add_step(step, 0, pair.key, false);
      made.members.push_back({std::string(pair.key), convert(pair.value, child, depth + 1)});
    }
    made.by_key.resize(made.members.size());
    std::iota(made.by_key.begin(), made.by_key.end(), 0u);
    std::sort(made.by_key.begin(), made.by_key.end(), [&](std::uint32_t x, std::uint32_t y) {
      return made.members[x].key < made.members[y].key;
    });
    for (std::size_t i = 1; i < made.by_key.size(); ++i) {
      const std::string& key = made.members[made.by_key[i]].key;
      ESP_REQUIRE(made.members[made.by_key[i - 1]].key != key, FormatError, origin_->where(step),
                  ": the key \"", key, "\" stands twice");
    }
    return v;
  }

  std::string_view text_;
  std::shared_ptr<detail::JsonOrigin> origin_;
};

ESP_INLINE Json parse_json(std::string_view text, std::string source) {
  return JsonReader(text, std::move(source)).read();
}

ESP_INLINE Json read_json(const std::filesystem::path& path) {
  return parse_json(read_text(path), path.string());
}

}  // namespace espalier::io
#endif
