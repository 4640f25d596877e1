// SPDX-License-Identifier: Apache-2.0
// Parses JSON with simdjson: strict RFC 8259, UTF-8 checked, one document per text. Duplicate keys
// are refused, because readers disagree about which one counts. Nesting is limited to 256 levels,
// a text to 4 GiB; an integer beyond 64 bits becomes a double (tokenizer_config.json writes
// 1000000000000000019884624838656 for "no limit"). Parsing takes at most 20 bytes of memory for a
// byte of text: the elements of each container are counted first, so that no list grows.
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

/// @throws FormatError naming `source`, what is wrong, line and column
[[nodiscard]] Json parse_json(std::string_view text, std::string source);
[[nodiscard]] Json read_json(const std::filesystem::path& path);

}  // namespace espalier::io

#ifdef ESP_BODIES
#include <array>
#include <deque>
#include <limits>

#include <simdjson.h>

namespace espalier::io {

namespace detail {

/// Number of elements of each container of a JSON text, in the order in which they open. Of text
/// that is not JSON it says where a string goes wrong; the rest is left to the parser.
struct JsonOutline {
  static constexpr std::size_t kMaxDepth = 256;

  std::deque<std::uint32_t> counts;
  bool too_deep = false;
  std::size_t bad_string = std::string_view::npos;  // a control character, or a quote not closed

  explicit JsonOutline(std::string_view text) {
    std::array<std::uint32_t, kMaxDepth> open;  // -> counts
    std::size_t depth = 0;
    bool empty = true;  // nothing since the last bracket that opened
    for (std::size_t i = 0; i < text.size(); ++i) {
      const char c = text[i];
      if (c == ' ' || c == '\n' || c == '\r' || c == '\t') continue;
      const bool closes = c == ']' || c == '}';
      if (empty && !closes && depth > 0) counts[open[depth - 1]] = 1;
      empty = c == '[' || c == '{';
      if (empty) {
        too_deep = depth == kMaxDepth;
        if (too_deep) return;
        open[depth++] = static_cast<std::uint32_t>(counts.size());
        counts.push_back(0);
      } else if (closes) {
        depth -= depth > 0 ? 1 : 0;
      } else if (c == ',' && depth > 0) {
        ++counts[open[depth - 1]];
      } else if (c == '"') {
        i = skip_string(text, i);
      }
    }
  }

 private:
  /// The closing quote.
  std::size_t skip_string(std::string_view text, std::size_t quote) {
    std::size_t i = quote + 1;
    for (; i < text.size() && text[i] != '"'; ++i) {
      if (static_cast<unsigned char>(text[i]) < 0x20) bad_string = std::min(bad_string, i);
      if (text[i] == '\\') ++i;
    }
    if (i >= text.size()) bad_string = std::min(bad_string, quote);
    return i;
  }
};

}  // namespace detail

class JsonReader {
 public:
  JsonReader(std::string_view text, std::string source)
      : document_(new detail::JsonDocument(text, std::move(source)),
                  [](const detail::JsonDocument* d) { d->release(); }),
        text_(document_->text()) {
    check_encoding();
  }

  Json read() {
    detail::JsonOutline outline(text_);
    ESP_REQUIRE(!outline.too_deep, FormatError, document_->source(), ": nested deeper than ",
                detail::JsonOutline::kMaxDepth, " levels");
    if (outline.bad_string != std::string_view::npos) {
      fail(text_[outline.bad_string] == '"' ? "a string is not closed"
                                            : "a control character within a string",
           outline.bad_string);
    }
    counts_ = std::move(outline.counts);
    simdjson::ondemand::parser parser;
    simdjson::ondemand::document root;
    const simdjson::padded_string_view padded(text_.data(), text_.size(),
                                              text_.size() + detail::JsonDocument::kPaddingBytes);
    check(parser.iterate(padded).get(root));
    root_ = &root;
    std::string_view token;
    check(root.raw_json_token().get(token));
    Json value = convert(root);
    const bool list = value.is_array() || value.is_object();
    const std::size_t end =
        list ? place_of_error()
             : static_cast<std::size_t>(token.data() + token.size() - text_.data());
    const std::size_t more = text_.find_first_not_of(" \t\r\n", end);
    if (more != std::string_view::npos) fail("something stands behind the value", more);
    return value;
  }

 private:
  [[noreturn]] void fail(std::string_view message, std::size_t place) const {
    const std::string_view before = text_.substr(0, place);
    const std::size_t begin = before.rfind('\n') + 1;  // npos + 1 is 0
    const auto lines = std::count(before.begin(), before.end(), '\n');
    const auto column = std::count_if(before.begin() + static_cast<std::ptrdiff_t>(begin),
                                      before.end(), [](char c) { return (c & 0xC0) != 0x80; });
    std::string position = "column " + std::to_string(column + 1);
    if (text_.find('\n') != std::string_view::npos) {
      position = "line " + std::to_string(lines + 1) + ", " + position;
    }
    throw FormatError(espalier::detail::concat(
        {document_->source(), ": not valid JSON: ", message, ", at ", position}));
  }
  [[noreturn]] void fail(simdjson::error_code error) const {
    std::string message = simdjson::error_message(error);
    while (!message.empty() && (message.back() == '.' || message.back() == ' ')) message.pop_back();
    // Found by the last bracket alone: that is the place to look at.
    const bool at_end =
        error == simdjson::INCOMPLETE_ARRAY_OR_OBJECT || error == simdjson::TRAILING_CONTENT;
    fail(message, at_end ? text_.find_last_not_of(" \t\r\n") : place_of_error());
  }
  void check(simdjson::error_code error) const {
    if (error != simdjson::SUCCESS) fail(error);
  }
  /// Where the parser stands; the text's end, where it does not know.
  std::size_t place_of_error() const {
    const char* at = nullptr;
    if (root_ == nullptr || root_->current_location().get(at) != simdjson::SUCCESS) {
      return text_.size();
    }
    return std::min(static_cast<std::size_t>(at - text_.data()), text_.size());
  }

  void check_encoding() const {
    const auto byte = [&](std::size_t i) {
      return i < text_.size() ? static_cast<unsigned char>(text_[i]) : 0x100u;
    };
    const std::string& source = document_->source();
    ESP_REQUIRE(text_.size() < std::numeric_limits<std::uint32_t>::max(), FormatError, source,
                ": has ", text_.size(), " bytes, at most 4 GiB are supported");
    const bool marked =
        (byte(0) == 0xff && byte(1) == 0xfe) || (byte(0) == 0xfe && byte(1) == 0xff);
    ESP_REQUIRE(!marked && byte(0) != 0 && byte(1) != 0, FormatError, source,
                ": is UTF-16; JSON must be UTF-8: save it so");
    ESP_REQUIRE(!text_.starts_with("\xef\xbb\xbf"), FormatError, source,
                ": begins with a byte order mark (BOM), which JSON must not have: save it as UTF-8 "
                "without one");
    if (simdjson::validate_utf8(text_.data(), text_.size())) return;
    std::size_t i = 0;
    for (std::size_t n = 1; i < text_.size() && n > 0; i += n) {
      n = detail::utf8_step(text_, i).length;
    }
    throw FormatError(
        espalier::detail::concat({source, ": byte ", i, " is not UTF-8; JSON must be UTF-8"}));
  }

  /// The outline and the parser count the elements alike, unless brackets do not match.
  [[noreturn]] void refuse_brackets(simdjson::error_code error = simdjson::SUCCESS) const {
    check(error);
    fail("brackets, commas or values do not match", place_of_error());
  }

  std::uint32_t next_count() {
    if (counts_.empty()) refuse_brackets();
    const std::uint32_t count = counts_.front();
    counts_.pop_front();
    return count;
  }

  template <class Value>
  Json convert(Value& v) {
    simdjson::ondemand::json_type type;
    check(v.type().get(type));
    std::string_view token;
    check(simdjson::simdjson_result<std::string_view>(v.raw_json_token()).get(token));
    const auto place = static_cast<std::size_t>(token.data() - text_.data());
    using Type = simdjson::ondemand::json_type;
    switch (type) {
      case Type::null: {
        bool null = false;
        const auto error = simdjson::simdjson_result<bool>(v.is_null()).get(null);
        if (error != simdjson::SUCCESS || !null) fail("expected null", place);
        return {Json::Kind::null, *document_, place};
      }
      case Type::boolean: {
        if (v.get_bool().error() != simdjson::SUCCESS) fail("expected true or false", place);
        return {Json::Kind::boolean, *document_, place};
      }
      case Type::number:
        return {number_kind(v, token, place), *document_, place};
      case Type::string: {
        std::string_view s;
        if (v.get_string().get(s) != simdjson::SUCCESS) fail("a wrong escape in a string", place);
        return string(s, place);
      }
      case Type::array: {
        simdjson::ondemand::array a;
        check(v.get_array().get(a));
        return array(a, place);
      }
      case Type::object: {
        simdjson::ondemand::object o;
        check(v.get_object().get(o));
        return object(o, place);
      }
    }
    fail(simdjson::TAPE_ERROR);
  }

  template <class Value>
  Json::Kind number_kind(Value& v, std::string_view token, std::size_t place) const {
    simdjson::ondemand::number number;
    if (v.get_number().get(number) == simdjson::SUCCESS) {
      if (number.is_int64()) return Json::Kind::integer;
      return number.is_uint64() ? Json::Kind::unsigned_integer : Json::Kind::number;
    }
    token = token.substr(0, token.find_last_not_of(" \t\r\n") + 1);
    const std::string_view digits = token.substr(token.starts_with('-') ? 1 : 0);
    double value = 0;
    const bool integer =
        digits.size() >= 19 && digits[0] != '0' &&
        digits.find_first_not_of("0123456789") == std::string_view::npos &&
        std::from_chars(token.data(), token.data() + token.size(), value).ec == std::errc();
    if (!integer) fail("not a number, or one that no double holds", place);
    return Json::Kind::number;
  }

  /// A string without escapes stays in the text, another one is stored.
  Json string(std::string_view s, std::size_t place) {
    const bool plain = text_.substr(place + 1, s.size()) == s && text_[place + 1 + s.size()] == '"';
    if (plain) return {Json::Kind::string, *document_, place};
    Json v(Json::Kind::string);
    v.place_ = static_cast<std::uint32_t>(place);
    v.value_.text = Json::Text::create_within(*document_, s.size());
    v.value_.text->append(s.data(), s.size());
    return v;
  }

  Json array(simdjson::ondemand::array& a, std::size_t place) {
    const std::uint32_t count = next_count();
    if (count == 0) {
      for (auto element : a) refuse_brackets(element.error());
      return {Json::Kind::array, *document_, place};
    }
    Json v(Json::Kind::array);
    v.place_ = static_cast<std::uint32_t>(place);
    v.value_.array = Json::Array::create_within(*document_, count);
    for (auto element : a) {
      simdjson::ondemand::value item;
      check(std::move(element).get(item));
      Json made = convert(item);
      if (v.value_.array->size == count) refuse_brackets();
      v.value_.array->add(std::move(made));
    }
    if (v.value_.array->size != count) refuse_brackets();
    return v;
  }

  Json object(simdjson::ondemand::object& o, std::size_t place) {
    const std::uint32_t count = next_count();
    if (count == 0) {
      for (auto field : o) refuse_brackets(field.error());
      return {Json::Kind::object, *document_, place};
    }
    Json v(Json::Kind::object);
    v.place_ = static_cast<std::uint32_t>(place);
    v.value_.object = Json::Object::create_within(*document_, count);
    for (auto found : o) {
      simdjson::ondemand::field field;
      check(std::move(found).get(field));
      std::string_view key;
      check(field.unescaped_key().get(key));
      Json::Member member{std::string(key), Json()};
      member.value = convert(field.value());
      if (v.value_.object->size == count) refuse_brackets();
      v.value_.object->add(std::move(member));
    }
    if (v.value_.object->size != count) refuse_brackets();
    v.value_.object->keys = detail::ordered_keys(v.members());
    refuse_duplicates(v);
    return v;
  }

  void refuse_duplicates(const Json& object) const {
    const std::span<const Json::Member> all = object.members();
    const auto refuse = [&](const std::string& key) {
      throw FormatError(
          espalier::detail::concat({object.where(), ": the key \"", key, "\" stands twice"}));
    };
    if (const detail::JsonKeys& keys = object.value_.object->keys) {
      for (std::size_t i = 1; i < keys->size(); ++i) {
        if (all[(*keys)[i - 1]].key == all[(*keys)[i]].key) refuse(all[(*keys)[i]].key);
      }
      return;
    }
    for (std::size_t i = 1; i < all.size(); ++i) {
      for (std::size_t k = 0; k < i; ++k) {
        if (all[i].key == all[k].key) refuse(all[i].key);
      }
    }
  }

  std::unique_ptr<detail::JsonDocument, void (*)(const detail::JsonDocument*)> document_;
  std::string_view text_;
  std::deque<std::uint32_t> counts_;
  simdjson::ondemand::document* root_ = nullptr;
};

ESP_INLINE Json parse_json(std::string_view text, std::string source) {
  return JsonReader(text, std::move(source)).read();
}

ESP_INLINE Json read_json(const std::filesystem::path& path) {
  return parse_json(read_text(path), path.string());
}

}  // namespace espalier::io
#endif
