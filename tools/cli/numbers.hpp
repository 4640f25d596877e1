// SPDX-License-Identifier: Apache-2.0
// Validators of numbers on the command line. Every option that takes a number has one:
//   app.add_option("--lr", o.lr, "Learning rate")->check(real_within(0, 1e3));
// CLI11's own let NaN pass, wrap integers that overflow, and read 010 as eight.
#pragma once

#include <fmt/format.h>

#include <CLI/App.hpp>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <system_error>

#include <espalier/core/inline.hpp>

namespace espalier {

/// An integer from `low` to `high` in decimal digits.
[[nodiscard]] ESP_INLINE CLI::Validator integer_within(std::int64_t low, std::uint64_t high) {
  const auto check = [low, high](std::string& text) {
    const bool negative = text.starts_with('-');
    const std::string_view digits = std::string_view(text).substr(negative ? 1 : 0);
    std::uint64_t n = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), n);
    const bool octal = digits.size() > 1 && digits[0] == '0';  // to CLI11, which converts later
    bool good = error == std::errc() && end == digits.data() + digits.size() && !octal;
    if (negative && n > 0) {
      good = good && low < 0 && n <= -static_cast<std::uint64_t>(low);
    } else {
      good = good && n <= high && (low <= 0 || n >= static_cast<std::uint64_t>(low));
    }
    return good ? std::string()
                : fmt::format("{} is not an integer from {} to {}", text, low, high);
  };
  return CLI::Validator(check, fmt::format("in [{} - {}]", low, high));
}

/// A finite number from `low` to `high`.
[[nodiscard]] ESP_INLINE CLI::Validator real_within(double low, double high) {
  const auto check = [low, high](std::string& text) {
    double x = 0;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, x);
    const bool good = error == std::errc() && stop == end && x >= low && x <= high;
    return good ? std::string() : fmt::format("{} is not a number from {} to {}", text, low, high);
  };
  return CLI::Validator(check, fmt::format("in [{} - {}]", low, high));
}

inline constexpr std::uint64_t kMostSteps = std::uint64_t{1} << 40;  // of anything that is counted

}  // namespace espalier
