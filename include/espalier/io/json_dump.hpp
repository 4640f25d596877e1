// SPDX-License-Identifier: Apache-2.0
// Writes JSON. Doubles are the shortest digits that read back equal, in the format of Python's repr
// (1e-05, 1000000.0), so a double stays a double. JSON has no NaN or infinity; they become null.
// Bytes that are not UTF-8 become U+FFFD. The output is always valid JSON.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/json_dump.hpp is host-only; include it from a .cpp"
#endif

#include <charconv>
#include <cmath>

#include <espalier/core/inline.hpp>
#include <espalier/io/json_value.hpp>

namespace espalier::io {

namespace detail {

/// Length of the UTF-8 sequence at `s[i]` (1-4) and its code point; length 0 if it is not valid.
struct Utf8Step {
  std::size_t length;
  std::uint32_t code;
};
[[nodiscard]] inline Utf8Step utf8_step(std::string_view s, std::size_t i) {
  const auto byte = [&](std::size_t k) -> std::uint32_t {
    return k < s.size() ? static_cast<unsigned char>(s[k]) : 0u;
  };
  const std::uint32_t first = byte(i);
  if (first < 0x80) return {1, first};
  const std::size_t length = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
  if (first < 0xc2 || first > 0xf4) return {0, 0};
  std::uint32_t code = first & (0x7fu >> length);
  for (std::size_t k = 1; k < length; ++k) {
    if ((byte(i + k) & 0xc0u) != 0x80u) return {0, 0};
    code = (code << 6) | (byte(i + k) & 0x3fu);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  if (overlong || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return {0, 0};
  return {length, code};
}

class JsonWriter {
 public:
  JsonWriter(int indent, bool python) : indent_(indent), python_(python) {}

  void write(const Json& v, int depth) {
    switch (v.kind()) {
      case Json::Kind::null:
        out += "null";
        break;
      case Json::Kind::boolean:
        out += v.as_bool() ? "true" : "false";
        break;
      case Json::Kind::integer:
        out += std::to_string(v.as_int());
        break;
      case Json::Kind::unsigned_integer:
        out += std::to_string(v.as_uint());
        break;
      case Json::Kind::number:
        number(v.as_double());
        break;
      case Json::Kind::string:
        string(v.as_string());
        break;
      case Json::Kind::array:
        open('[', v.size());
        for (std::size_t i = 0; i < v.size(); ++i) {
          separate(i, depth + 1);
          write(v.items()[i], depth + 1);
        }
        close(']', v.size(), depth);
        break;
      case Json::Kind::object:
        open('{', v.size());
        for (std::size_t i = 0; i < v.size(); ++i) {
          separate(i, depth + 1);
          string(v.members()[i].key);
          out += indent_ >= 0 || python_ ? ": " : ":";
          write(v.members()[i].value, depth + 1);
        }
        close('}', v.size(), depth);
        break;
    }
  }

  std::string out;

 private:
  void open(char bracket, std::size_t) { out += bracket; }
  void separate(std::size_t i, int depth) {
    if (i > 0) out += indent_ < 0 && python_ ? ", " : ",";
    if (indent_ >= 0) new_line(depth);
  }
  void close(char bracket, std::size_t size, int depth) {
    if (indent_ >= 0 && size > 0) new_line(depth);
    out += bracket;
  }
  void new_line(int depth) {
    out += '\n';
    out.append(static_cast<std::size_t>(indent_) * static_cast<std::size_t>(depth), ' ');
  }

  void number(double v) {
    if (!std::isfinite(v)) {
      out += "null";
      return;
    }
    // d.ddde[+-]xx, taken apart: Python switches to an exponent below 1e-4 and from 1e16 on.
    char text[32];
    const auto end = std::to_chars(text, text + sizeof text, v, std::chars_format::scientific).ptr;
    std::string_view s(text, static_cast<std::size_t>(end - text));
    if (s.front() == '-') {
      out += '-';
      s.remove_prefix(1);
    }
    const std::size_t e = s.find('e');
    std::string digits(s.substr(0, 1));
    if (e > 2) digits += s.substr(2, e - 2);
    int exponent = 0;
    const char* first = s.data() + e + 1;
    std::from_chars(first + (*first == '+' ? 1 : 0), s.data() + s.size(), exponent);
    const int count = static_cast<int>(digits.size());
    if (exponent < -4 || exponent >= 16) {
      out += s;
    } else if (exponent < 0) {
      out += "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
    } else if (count <= exponent + 1) {
      out += digits + std::string(static_cast<std::size_t>(exponent + 1 - count), '0') + ".0";
    } else {
      out += digits.substr(0, static_cast<std::size_t>(exponent) + 1) + "." +
             digits.substr(static_cast<std::size_t>(exponent) + 1);
    }
  }

  void escape(std::uint32_t unit) {
    static constexpr char kHex[] = "0123456789abcdef";
    out += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out += kHex[(unit >> shift) & 15u];
  }

  void string(std::string_view s) {
    out += '"';
    for (std::size_t i = 0; i < s.size();) {
      Utf8Step step = utf8_step(s, i);
      const bool valid = step.length > 0;
      if (!valid) step = {1, 0xfffd};
      const std::string_view bytes = valid ? s.substr(i, step.length) : "\xef\xbf\xbd";
      i += step.length;
      static constexpr std::string_view kShort = "\"\\\b\f\n\r\t", kLetter = "\"\\bfnrt";
      const std::size_t known =
          step.code < 0x80 ? kShort.find(static_cast<char>(step.code)) : std::string_view::npos;
      if (known != std::string_view::npos) {
        out += '\\';
        out += kLetter[known];
      } else if (step.code < 0x20 || (python_ && step.code > 0x7e && step.code < 0x10000)) {
        escape(step.code);
      } else if (python_ && step.code >= 0x10000) {
        escape(0xd800u + ((step.code - 0x10000u) >> 10));
        escape(0xdc00u + ((step.code - 0x10000u) & 0x3ffu));
      } else {
        out += bytes;
      }
    }
    out += '"';
  }

  int indent_;
  bool python_;
};

}  // namespace detail

/// One line without spaces, or, with `indent` >= 0, a line per element as Python lays it out.
/// UTF-8 stays as it is.
[[nodiscard]] ESP_INLINE std::string dump(const Json& value, int indent = -1) {
  detail::JsonWriter writer(indent, false);
  writer.write(value, 0);
  return std::move(writer.out);
}

/// The bytes of Python's `json.dumps(value, indent=...)`: ASCII only, ", " and ": " between.
[[nodiscard]] ESP_INLINE std::string dump_python(const Json& value, int indent = -1) {
  detail::JsonWriter writer(indent, true);
  writer.write(value, 0);
  return std::move(writer.out);
}

}  // namespace espalier::io
