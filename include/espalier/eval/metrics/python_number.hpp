// SPDX-License-Identifier: Apache-2.0
// Python's float(text) and str(float), by which metrics compare numbers that are written otherwise.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/python_number.hpp is host-only; include it from a .cpp"
#endif

#include <optional>
#include <string>
#include <string_view>

#include <espalier/core/inline.hpp>

namespace espalier::eval::metrics {

/// float(text): decimals, exponents, "inf", "nan", underscores between digits, white space around;
/// ASCII digits only. Nothing where Python raises ValueError.
[[nodiscard]] std::optional<double> python_float(std::string_view text);
/// str(x): the shortest text that is x again, "1e+16" from 10^16 on and "1e-05" below 10^-4.
[[nodiscard]] std::string python_repr(double x);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <charconv>
#include <cmath>
#include <limits>

#include <espalier/eval/metrics/python_text.hpp>

namespace espalier::eval::metrics {

namespace detail {

/// Digits with single underscores between them, appended without these; false if there are none.
inline bool take_digits(std::string_view& s, std::string& out) {
  const std::size_t before = out.size();
  while (!s.empty()) {
    const bool joined = s.size() > 1 && s[0] == '_' && out.size() > before && is_ascii_digit(s[1]);
    if (joined) s.remove_prefix(1);
    if (!is_ascii_digit(s[0])) break;
    out += s[0];
    s.remove_prefix(1);
  }
  return out.size() > before;
}

}  // namespace detail

ESP_INLINE std::optional<double> python_float(std::string_view text) {
  std::string_view s = strip(text);
  std::string plain;
  const bool negative = s.starts_with('-');
  if (negative || s.starts_with('+')) s.remove_prefix(1);
  const std::string word = lower(s);
  const double sign = negative ? -1 : 1;
  if (word == "inf" || word == "infinity") return sign * std::numeric_limits<double>::infinity();
  if (word == "nan") return std::numeric_limits<double>::quiet_NaN();
  bool digits = detail::take_digits(s, plain);
  if (s.starts_with('.')) {
    s.remove_prefix(1);
    plain += '.';
    digits = detail::take_digits(s, plain) || digits;
  }
  if (!digits) return std::nullopt;
  if (s.starts_with('e') || s.starts_with('E')) {
    s.remove_prefix(1);
    plain += 'e';
    if (s.starts_with('-')) plain += '-';
    if (s.starts_with('-') || s.starts_with('+')) s.remove_prefix(1);
    if (!detail::take_digits(s, plain)) return std::nullopt;
  }
  if (!s.empty()) return std::nullopt;
  double x = 0;
  const auto [end, error] = std::from_chars(plain.data(), plain.data() + plain.size(), x);
  if (error == std::errc::result_out_of_range) {  // beyond a double: infinity, or zero
    const std::size_t e = plain.find("e-");
    x = e == plain.npos ? std::numeric_limits<double>::infinity() : 0;
  }
  return sign * x;
}

ESP_INLINE std::string python_repr(double x) {
  if (std::isnan(x)) return "nan";
  if (std::isinf(x)) return x > 0 ? "inf" : "-inf";
  const double size = std::abs(x);
  const bool exponent = size != 0 && (size < 1e-4 || size >= 1e16);
  char buffer[400];
  const auto [end, error] =
      std::to_chars(buffer, buffer + sizeof(buffer), x,
                    exponent ? std::chars_format::scientific : std::chars_format::fixed);
  std::string s(buffer, end);
  if (!exponent && s.find('.') == s.npos) s += ".0";
  return s;
}

}  // namespace espalier::eval::metrics
#endif
