// SPDX-License-Identifier: Apache-2.0
// A JSON value: null, bool, integer, double, string, array, object. Objects keep the order of their
// keys. A parsed value knows its place in the document, so that reading it as the wrong type says
//   config.json: at "num_local_experts": expected an integer, found a string
// Integers are exact over the whole int64 and uint64 range; a larger one is a double.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/json_value.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/io/json_document.hpp>

namespace espalier::io {

class Json {
 public:
  enum class Kind : std::uint8_t {
    null,
    boolean,
    integer,
    unsigned_integer,
    number,
    string,
    array,
    object
  };
  struct Member;

  Json() = default;
  ESP_INLINE Json(const Json& from);
  Json(Json&& from) noexcept
      : value_(std::exchange(from.value_, Value())),
        place_(from.place_),
        kind_(std::exchange(from.kind_, Kind::null)),
        in_text_(std::exchange(from.in_text_, false)) {}
  Json& operator=(Json from) noexcept {
    std::swap(value_, from.value_);
    std::swap(place_, from.place_);
    std::swap(kind_, from.kind_);
    std::swap(in_text_, from.in_text_);
    return *this;
  }
  ~Json() {
    if (in_text_ || kind_ >= Kind::string) clear();
  }
  Json(std::nullptr_t) {}
  Json(bool v) : kind_(Kind::boolean) { value_.boolean = v; }
  template <std::integral I>
  requires(!std::same_as<I, bool>) Json(I v) {
    if (std::in_range<std::int64_t>(v)) {
      kind_ = Kind::integer;
      value_.integer = static_cast<std::int64_t>(v);
    } else {
      kind_ = Kind::unsigned_integer;
      value_.unsigned_integer = static_cast<std::uint64_t>(v);
    }
  }
  Json(double v) : kind_(Kind::number) { value_.number = v; }
  Json(const char* v) : Json(std::string_view(v)) {}
  Json(const std::string& v) : Json(std::string_view(v)) {}
  ESP_INLINE Json(std::string_view v);

  [[nodiscard]] static Json array() { return Json(Kind::array); }
  /// An array of anything a Json can be made from.
  template <class Range>
  [[nodiscard]] static Json array(const Range& range) {
    Json j = array();
    for (const auto& v : range) j.push_back(Json(v));
    return j;
  }
  [[nodiscard]] static Json object() { return Json(Kind::object); }

  Kind kind() const { return kind_; }
  bool is_null() const { return kind() == Kind::null; }
  bool is_bool() const { return kind() == Kind::boolean; }
  bool is_integer() const { return kind() == Kind::integer || kind() == Kind::unsigned_integer; }
  bool is_number() const { return is_integer() || kind() == Kind::number; }
  bool is_string() const { return kind() == Kind::string; }
  bool is_array() const { return kind() == Kind::array; }
  bool is_object() const { return kind() == Kind::object; }

  bool as_bool() const {
    expect(is_bool(), "true or false");
    return in_text_ ? in_text().front() == 't' : value_.boolean;
  }
  ESP_INLINE std::int64_t as_int() const {
    ESP_REQUIRE(kind_ != Kind::unsigned_integer, FormatError, where(),
                ": expected an integer below 2^63, found ", as_uint());
    expect(kind_ == Kind::integer, "an integer");
    return in_text_ ? parsed<std::int64_t>() : value_.integer;
  }
  ESP_INLINE std::uint64_t as_uint() const {
    if (kind_ == Kind::unsigned_integer) {
      return in_text_ ? parsed<std::uint64_t>() : value_.unsigned_integer;
    }
    expect(kind_ == Kind::integer, "an integer >= 0");
    const std::int64_t v = as_int();
    ESP_REQUIRE(v >= 0, FormatError, where(), ": expected an integer >= 0, found ", v);
    return static_cast<std::uint64_t>(v);
  }
  ESP_INLINE double as_double() const {
    expect(is_number(), "a number");
    if (in_text_) return parsed<double>();
    if (kind_ == Kind::integer) return static_cast<double>(value_.integer);
    if (kind_ == Kind::number) return value_.number;
    return static_cast<double>(value_.unsigned_integer);
  }
  ESP_INLINE std::string as_string() const {
    expect(is_string(), "a string");
    if (in_text_) return std::string(value_.document->plain_string(place_));
    if (value_.text == nullptr) return {};
    return {value_.text->items(), value_.text->size};
  }

  /// Elements of an array, in order.
  std::span<const Json> items() const {
    expect(is_array(), "an array");
    if (in_text_ || value_.array == nullptr) return {};
    return {value_.array->items(), value_.array->size};
  }
  /// Members (`key`, `value`) of an object, in the order they stood or were added.
  inline std::span<const Member> members() const;

  /// Of an array or an object.
  inline std::size_t size() const;
  template <std::integral I>
  const Json& at(I i) const {
    ESP_REQUIRE(std::cmp_greater_equal(i, 0) && std::cmp_less(i, items().size()), FormatError,
                where(), ": element ", i, " is missing, there are ", items().size());
    return items()[static_cast<std::size_t>(i)];
  }
  /// @throws FormatError `config.json: "hidden_size" is missing`
  const Json& at(std::string_view key) const {
    const Json* v = find(key);
    ESP_REQUIRE(v != nullptr, FormatError, where(), ": \"", key, "\" is missing");
    return *v;
  }
  const Json& at(const char* key) const { return at(std::string_view(key)); }
  /// nullptr if the object has no such key.
  ESP_INLINE const Json* find(std::string_view key) const;
  /// As `find`, but a key whose value is null counts as missing.
  const Json* find_value(std::string_view key) const {
    const Json* v = find(key);
    return v != nullptr && !v->is_null() ? v : nullptr;
  }

  /// Finds or adds; null becomes an object.
  ESP_INLINE Json& operator[](std::string_view key);
  Json& operator[](const char* key) { return (*this)[std::string_view(key)]; }
  ESP_INLINE void erase(std::string_view key);
  /// Null becomes an array.
  ESP_INLINE void push_back(Json v);

  /// "config.json: at "rope_parameters"."rope_theta"", for the caller's messages.
  ESP_INLINE std::string where() const;
  /// "a string", for messages.
  std::string_view kind_name() const {
    static constexpr std::string_view kNames[] = {"null",       "true or false", "an integer",
                                                  "an integer", "a number",      "a string",
                                                  "an array",   "an object"};
    return kNames[static_cast<std::size_t>(kind_)];
  }

  inline friend bool operator==(const Json& a, const Json& b);

 private:
  friend class JsonReader;
  using Text = detail::JsonNode<char>;
  using Array = detail::JsonNode<Json>;
  using Object = detail::JsonNode<Member, detail::JsonKeys>;

  /// Where in_text_, the document; the value stands in its text at place_.
  union Value {
    const detail::JsonDocument* document = nullptr;
    bool boolean;
    std::int64_t integer;
    std::uint64_t unsigned_integer;
    double number;
    Text* text;  // null: empty; so for the two below
    Array* array;
    Object* object;
  };

  explicit Json(Kind kind) : kind_(kind) {}
  /// A scalar or an empty container that stands in a document's text.
  Json(Kind kind, const detail::JsonDocument& document, std::size_t place)
      : place_(static_cast<std::uint32_t>(place)), kind_(kind), in_text_(true) {
    document.share();
    value_.document = &document;
  }

  void expect(bool ok, const char* wanted) const {
    ESP_REQUIRE(ok, FormatError, where(), ": expected ", wanted, ", found ", kind_name());
  }
  std::string_view in_text() const { return value_.document->text().substr(place_); }
  template <class Number>
  Number parsed() const {
    const std::string_view s = in_text();
    // What is too small for a double is left as it is by from_chars: a zero with its sign.
    Number v = s.front() == '-' ? static_cast<Number>(-0.0) : 0;
    std::from_chars(s.data(), s.data() + s.size(), v);
    return v;
  }
  ESP_INLINE void clear() noexcept;
  /// Makes an array or object that can have elements out of null or a parsed empty one.
  void prepare(Kind kind) {
    if (is_null() || (in_text_ && kind_ == kind)) *this = Json(kind);
  }

  Value value_;
  std::uint32_t place_ = 0;
  Kind kind_ = Kind::null;
  bool in_text_ = false;
};

struct Json::Member {
  std::string key;
  Json value;
  friend bool operator==(const Member&, const Member&) = default;
};

inline std::span<const Json::Member> Json::members() const {
  expect(is_object(), "an object");
  if (in_text_ || value_.object == nullptr) return {};
  return {value_.object->items(), value_.object->size};
}

inline std::size_t Json::size() const {
  return is_object() ? members().size() : items().size();
}

ESP_INLINE Json::Json(std::string_view v) : kind_(Kind::string) {
  if (v.empty()) return;
  value_.text = Text::create(v.size(), nullptr);
  value_.text->append(v.data(), v.size());
}

ESP_INLINE Json::Json(const Json& from)
    : value_(from.value_), place_(from.place_), kind_(from.kind_), in_text_(from.in_text_) {
  if (in_text_) {
    value_.document->share();
  } else if (is_string()) {
    value_.text = Text::copy(from.value_.text);
  } else if (is_array()) {
    value_.array = Array::copy(from.value_.array);
  } else if (is_object()) {
    value_.object = Object::copy(from.value_.object);
  }
}

ESP_INLINE void Json::clear() noexcept {
  if (in_text_) {
    value_.document->release();
  } else if (is_string()) {
    Text::destroy(value_.text);
  } else if (is_array()) {
    Array::destroy(value_.array);
  } else if (is_object()) {
    Object::destroy(value_.object);
  }
}

ESP_INLINE const Json* Json::find(std::string_view key) const {
  const std::span<const Member> all = members();
  if (in_text_ || value_.object == nullptr || !value_.object->keys) {
    const auto it =
        std::find_if(all.begin(), all.end(), [&](const Member& m) { return m.key == key; });
    return it == all.end() ? nullptr : &it->value;
  }
  const std::vector<std::uint32_t>& order = *value_.object->keys;
  const auto it =
      std::lower_bound(order.begin(), order.end(), key,
                       [&](std::uint32_t i, std::string_view k) { return all[i].key < k; });
  return it == order.end() || all[*it].key != key ? nullptr : &all[*it].value;
}

namespace detail {
/// The members in the order of their keys; nothing for a few, which are found by looking at each.
template <class Members>
JsonKeys ordered_keys(const Members& members) {
  constexpr std::size_t kFew = 8;
  if (members.size() <= kFew) return nullptr;
  auto order = std::make_unique<std::vector<std::uint32_t>>(members.size());
  std::iota(order->begin(), order->end(), 0u);
  std::sort(order->begin(), order->end(),
            [&](std::uint32_t a, std::uint32_t b) { return members[a].key < members[b].key; });
  return order;
}
}  // namespace detail

ESP_INLINE Json& Json::operator[](std::string_view key) {
  prepare(Kind::object);
  if (const Json* found = find(key)) return const_cast<Json&>(*found);
  value_.object = Object::with_room(value_.object);
  Object& o = *value_.object;
  if (o.keys) {
    const auto at =
        std::lower_bound(o.keys->begin(), o.keys->end(), key,
                         [&](std::uint32_t i, std::string_view k) { return o.items()[i].key < k; });
    o.keys->insert(at, o.size);
  }
  o.add({std::string(key), Json()});
  if (!o.keys) o.keys = detail::ordered_keys(members());
  return o.items()[o.size - 1].value;
}

ESP_INLINE void Json::erase(std::string_view key) {
  const Json* found = find(key);
  if (found == nullptr) return;
  Object& o = *value_.object;
  const auto gone =
      static_cast<std::size_t>(std::find_if(o.items(), o.items() + o.size,
                                            [&](const Member& m) { return &m.value == found; }) -
                               o.items());
  o.erase(gone);
  o.keys = detail::ordered_keys(members());
}

ESP_INLINE void Json::push_back(Json v) {
  prepare(Kind::array);
  expect(is_array(), "an array");
  value_.array = Array::with_room(value_.array);
  value_.array->add(std::move(v));
}

ESP_INLINE std::string Json::where() const {
  const detail::JsonDocument* document = nullptr;
  if (in_text_) {
    document = value_.document;
  } else if (is_string() && value_.text != nullptr) {
    document = value_.text->block().document;
  } else if (is_array() && value_.array != nullptr) {
    document = value_.array->block().document;
  } else if (is_object() && value_.object != nullptr) {
    document = value_.object->block().document;
  }
  return document == nullptr ? "JSON value" : document->where(place_);
}

/// Equal kind and content, including the order of keys; the origin is ignored.
inline bool operator==(const Json& a, const Json& b) {
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Json::Kind::null:
      return true;
    case Json::Kind::boolean:
      return a.as_bool() == b.as_bool();
    case Json::Kind::integer:
      return a.as_int() == b.as_int();
    case Json::Kind::unsigned_integer:
      return a.as_uint() == b.as_uint();
    case Json::Kind::number:
      return a.as_double() == b.as_double();
    case Json::Kind::string:
      return a.as_string() == b.as_string();
    case Json::Kind::array:
      return std::equal(a.items().begin(), a.items().end(), b.items().begin(), b.items().end());
    case Json::Kind::object:
      return std::equal(a.members().begin(), a.members().end(), b.members().begin(),
                        b.members().end());
  }
  return false;
}

}  // namespace espalier::io
