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
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>

namespace espalier::io {

namespace detail {
/// The steps from the root of one document to each of its values.
struct JsonOrigin {
  struct Step {
    std::uint32_t parent;
    std::uint32_t index;  // in an array
    std::string key;      // in an object
    bool in_array;
  };
  std::string source;
  std::vector<Step> steps;  // steps[0] is the root

  ESP_INLINE std::string where(std::uint32_t step) const {
    std::string path;
    for (; step != 0; step = steps[step].parent) {
      const Step& s = steps[step];
      const char* dot = path.empty() || path.front() == '[' ? "" : ".";
      path = (s.in_array ? "[" + std::to_string(s.index) + "]" : "\"" + s.key + "\"") + dot + path;
    }
    return path.empty() ? source : source + ": at " + path;
  }
};
}  // namespace detail

class Json {
 public:
  enum class Kind { null, boolean, integer, unsigned_integer, number, string, array, object };
  struct Member;

  Json() = default;
  Json(const Json&) = default;
  // Not inlined: where the alternative is known, g++ 12 warns of moving the others.
  [[gnu::noinline]] Json(Json&& from) noexcept
      : value_(std::move(from.value_)), origin_(std::move(from.origin_)), step_(from.step_) {}
  Json& operator=(const Json&) = default;
  Json& operator=(Json&&) = default;
  Json(std::nullptr_t) {}
  Json(bool v) : value_(v) {}
  template <std::integral I>
  requires(!std::same_as<I, bool>) Json(I v) {
    if (std::in_range<std::int64_t>(v)) {
      value_ = static_cast<std::int64_t>(v);
    } else {
      value_ = static_cast<std::uint64_t>(v);
    }
  }
  Json(double v) : value_(v) {}
  Json(const char* v) : value_(std::string(v)) {}
  Json(std::string_view v) : value_(std::string(v)) {}
  Json(std::string v) : value_(std::move(v)) {}

  [[nodiscard]] static Json array() {
    Json j;
    j.value_.emplace<Array>();
    return j;
  }
  /// An array of anything a Json can be made from.
  template <class Range>
  [[nodiscard]] static Json array(const Range& range) {
    Json j = array();
    for (const auto& v : range) j.push_back(Json(v));
    return j;
  }
  [[nodiscard]] static Json object() {
    Json j;
    j.value_.emplace<Object>();
    return j;
  }

  Kind kind() const { return static_cast<Kind>(value_.index()); }
  bool is_null() const { return kind() == Kind::null; }
  bool is_bool() const { return kind() == Kind::boolean; }
  bool is_integer() const { return kind() == Kind::integer || kind() == Kind::unsigned_integer; }
  bool is_number() const { return is_integer() || kind() == Kind::number; }
  bool is_string() const { return kind() == Kind::string; }
  bool is_array() const { return kind() == Kind::array; }
  bool is_object() const { return kind() == Kind::object; }

  bool as_bool() const {
    expect(is_bool(), "true or false");
    return std::get<bool>(value_);
  }
  std::int64_t as_int() const {
    expect(kind() == Kind::integer, "an integer");
    return std::get<std::int64_t>(value_);
  }
  std::uint64_t as_uint() const {
    if (kind() == Kind::unsigned_integer) return std::get<std::uint64_t>(value_);
    expect(kind() == Kind::integer && std::get<std::int64_t>(value_) >= 0, "an integer >= 0");
    return static_cast<std::uint64_t>(std::get<std::int64_t>(value_));
  }
  double as_double() const {
    expect(is_number(), "a number");
    if (kind() == Kind::integer) return static_cast<double>(std::get<std::int64_t>(value_));
    if (kind() == Kind::number) return std::get<double>(value_);
    return static_cast<double>(std::get<std::uint64_t>(value_));
  }
  const std::string& as_string() const {
    expect(is_string(), "a string");
    return std::get<std::string>(value_);
  }

  /// Elements of an array, in order.
  const std::vector<Json>& items() const {
    expect(is_array(), "an array");
    return std::get<Array>(value_);
  }
  /// Members (`key`, `value`) of an object, in the order they stood or were added.
  inline const std::vector<Member>& members() const;

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
  inline const Json* find(std::string_view key) const;
  /// As `find`, but a key whose value is null counts as missing.
  const Json* find_value(std::string_view key) const {
    const Json* v = find(key);
    return v != nullptr && !v->is_null() ? v : nullptr;
  }

  /// Finds or adds; null becomes an object.
  ESP_INLINE Json& operator[](std::string_view key);
  Json& operator[](const char* key) { return (*this)[std::string_view(key)]; }
  inline void erase(std::string_view key);
  /// Null becomes an array.
  void push_back(Json v) {
    if (is_null()) value_.emplace<Array>();
    expect(is_array(), "an array");
    std::get<Array>(value_).push_back(std::move(v));
  }

  /// "config.json: at "rope_parameters"."rope_theta"", for the caller's messages.
  std::string where() const { return origin_ ? origin_->where(step_) : std::string("JSON value"); }
  /// "a string", for messages.
  std::string_view kind_name() const {
    static constexpr std::string_view kNames[] = {"null",       "true or false", "an integer",
                                                  "an integer", "a number",      "a string",
                                                  "an array",   "an object"};
    return kNames[value_.index()];
  }

  inline friend bool operator==(const Json& a, const Json& b);

 private:
  friend class JsonReader;
  using Array = std::vector<Json>;
  struct Object {  // its functions need a complete Member, so they are defined below
    inline Object() noexcept;
    inline Object(const Object&);
    inline Object(Object&&) noexcept;
    inline Object& operator=(const Object&);
    inline Object& operator=(Object&&) noexcept;
    inline ~Object();
    std::vector<Member> members;
    std::vector<std::uint32_t> by_key;  // the members in the order of their keys
  };

  void expect(bool ok, const char* wanted) const {
    ESP_REQUIRE(ok, FormatError, where(), ": expected ", wanted, ", found ", kind_name());
  }
  inline static std::size_t lower_bound(const Object& o, std::string_view key);

  std::variant<std::monostate, bool, std::int64_t, std::uint64_t, double, std::string, Array,
               Object>
      value_;
  std::shared_ptr<const detail::JsonOrigin> origin_;
  std::uint32_t step_ = 0;
};

struct Json::Member {
  std::string key;
  Json value;
  friend bool operator==(const Member&, const Member&) = default;
};

inline Json::Object::Object() noexcept = default;
inline Json::Object::Object(const Object&) = default;
inline Json::Object::Object(Object&&) noexcept = default;
inline Json::Object& Json::Object::operator=(const Object&) = default;
inline Json::Object& Json::Object::operator=(Object&&) noexcept = default;
inline Json::Object::~Object() = default;

inline const std::vector<Json::Member>& Json::members() const {
  expect(is_object(), "an object");
  return std::get<Object>(value_).members;
}

inline std::size_t Json::size() const {
  return is_object() ? members().size() : items().size();
}

inline std::size_t Json::lower_bound(const Object& o, std::string_view key) {
  const auto less = [&](std::uint32_t i, std::string_view k) { return o.members[i].key < k; };
  return static_cast<std::size_t>(std::lower_bound(o.by_key.begin(), o.by_key.end(), key, less) -
                                  o.by_key.begin());
}

inline const Json* Json::find(std::string_view key) const {
  expect(is_object(), "an object");
  const Object& o = std::get<Object>(value_);
  const std::size_t at = lower_bound(o, key);
  if (at == o.by_key.size() || o.members[o.by_key[at]].key != key) return nullptr;
  return &o.members[o.by_key[at]].value;
}

ESP_INLINE Json& Json::operator[](std::string_view key) {
  if (is_null()) value_.emplace<Object>();
  expect(is_object(), "an object");
  Object& o = std::get<Object>(value_);
  const std::size_t at = lower_bound(o, key);
  if (at < o.by_key.size() && o.members[o.by_key[at]].key == key) {
    return o.members[o.by_key[at]].value;
  }
  o.by_key.insert(o.by_key.begin() + static_cast<std::ptrdiff_t>(at),
                  static_cast<std::uint32_t>(o.members.size()));
  o.members.push_back({std::string(key), Json()});
  return o.members.back().value;
}

inline void Json::erase(std::string_view key) {
  if (find(key) == nullptr) return;
  Object& o = std::get<Object>(value_);
  const std::size_t at = lower_bound(o, key);
  const std::uint32_t gone = o.by_key[at];
  o.by_key.erase(o.by_key.begin() + static_cast<std::ptrdiff_t>(at));
  for (std::uint32_t& i : o.by_key) i -= i > gone ? 1 : 0;
  o.members.erase(o.members.begin() + gone);
}

/// Equal kind and content, including the order of keys; the origin is ignored.
inline bool operator==(const Json& a, const Json& b) {
  if (a.kind() != b.kind()) return false;
  if (a.is_array()) return a.items() == b.items();
  if (a.is_object()) return a.members() == b.members();
  switch (a.kind()) {
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
    default:
      return true;
  }
}

}  // namespace espalier::io
