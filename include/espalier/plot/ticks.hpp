// SPDX-License-Identifier: Apache-2.0
// Ticks at nice numbers (1, 2, 2.5, 5 times a power of ten), their labels, and ranges that hold any
// data: empty, constant, NaN and infinite values included.
#pragma once

#ifdef __CUDACC__
#error "espalier/plot/ticks.hpp is host-only; include it from a .cpp"
#endif

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace espalier::plot {

/// True unless NaN, infinite, or so large that the difference of two values overflows.
[[nodiscard]] inline bool drawable(double v) {
  return std::abs(v) <= 1e300;
}

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  /// Ignores values that are not drawable.
  void add(double v) {
    if (!drawable(v)) return;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  bool empty() const { return !(low <= high); }
  double span() const { return high - low; }

  /// Never empty and never a single point.
  Range usable() const {
    if (empty()) return {0.0, 1.0};
    const double magnitude = std::max(std::abs(low), std::abs(high));
    if (span() > magnitude * 1e-12 && span() > 1e-290) return *this;
    const double half = magnitude > 1e-290 ? magnitude * 0.1 : 0.5;
    return {low - half, high + half};
  }
};

struct Tick {
  double value;
  std::string label;
};

namespace detail {

/// "10⁻⁵"
inline std::string power_of_ten(int exponent) {
  static constexpr const char* kDigits[] = {"⁰", "¹", "²", "³", "⁴", "⁵", "⁶", "⁷", "⁸", "⁹"};
  std::string text = exponent < 0 ? "10⁻" : "10";
  for (const char c : std::to_string(std::abs(exponent))) text += kDigits[c - '0'];
  return text;
}

inline std::string plain(double v, int decimals) {
  std::string text = fmt::format("{:.{}f}", v, std::max(decimals, 0));
  if (text.find_first_not_of("-0.") == std::string::npos && text[0] == '-') text.erase(0, 1);
  if (text[0] == '-') text.replace(0, 1, "−");  // a true minus sign is as wide as a digit
  return text;
}

}  // namespace detail

/// One scale for all labels of an axis: values are shown divided by 10^exponent.
struct Scale {
  int exponent = 0;
  std::string note;  // "×10⁻⁵", empty when the values are shown as they are

  explicit Scale(const Range& range) {
    const double magnitude = std::max(std::abs(range.low), std::abs(range.high));
    if (!(magnitude > 0) || !std::isfinite(magnitude)) return;
    const int power = static_cast<int>(std::floor(std::log10(magnitude) + 1e-9));
    if (power >= -2 && power <= 4) return;
    exponent = power;
    note = "×" + detail::power_of_ten(exponent);
  }
  double shown(double v) const {
    // Two steps, because 10^-exponent may be out of range.
    const int half = exponent / 2;
    return v / std::pow(10.0, half) / std::pow(10.0, exponent - half);
  }
};

/// About `count` ticks at most inside `range`; none if its ends print alike or their difference
/// overflows a double.
[[nodiscard]] inline std::vector<Tick> linear_ticks(const Range& range, int count,
                                                    const Scale& scale) {
  const double low = scale.shown(range.low), high = scale.shown(range.high);
  const double rough = (high - low) / std::max(count, 1);
  if (!(rough > 0) || !std::isfinite(rough)) return {};
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  double step = 10 * power;
  int extra = 0;  // 2.5 needs one more decimal
  for (const double nice : {1.0, 2.0, 2.5, 5.0}) {
    if (nice * power < rough * (1 - 1e-9)) continue;
    step = nice * power;
    extra = nice == 2.5 ? 1 : 0;
    break;
  }
  const int decimals = std::max(0, extra - static_cast<int>(std::floor(std::log10(step) + 1e-9)));
  const double back = range.span() / (high - low);
  std::vector<Tick> ticks;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + step * 1e-9; ++k) {
    ticks.push_back({range.low + (k * step - low) * back, detail::plain(k * step, decimals)});
    if (ticks.size() > 100) break;
  }
  return ticks;
}

/// Ticks of an axis that shows log10(y): powers of ten, and 2 and 5 between when there are few.
[[nodiscard]] inline std::vector<Tick> log_ticks(const Range& log10_range) {
  const bool dense = log10_range.span() < 2.5;
  const bool plain = log10_range.low > -3.1 && log10_range.high < 5;
  const int step = std::max(1, static_cast<int>(std::ceil(log10_range.span() / 8)));
  std::vector<Tick> ticks;
  for (int e = static_cast<int>(std::floor(log10_range.low)); e <= log10_range.high; e += step) {
    for (const int m : {1, 2, 5}) {
      if (m != 1 && !dense) continue;
      const double at = e + std::log10(m);
      if (at < log10_range.low - 1e-9 || at > log10_range.high + 1e-9) continue;
      std::string label;
      if (plain) {
        label = detail::plain(m * std::pow(10.0, e), -e);
      } else {
        label = (m == 1 ? "" : std::to_string(m) + "·") + detail::power_of_ten(e);
      }
      ticks.push_back({at, label});
    }
  }
  if (ticks.size() >= 2) return ticks;
  std::vector<Tick> fine;  // less than a factor of two: plain numbers at their logarithms
  const Range linear{std::pow(10.0, log10_range.low), std::pow(10.0, log10_range.high)};
  for (const Tick& t : linear_ticks(linear, 5, Scale({0, 1}))) {
    if (t.value > 0) fine.push_back({std::log10(t.value), t.label});
  }
  return fine;
}

}  // namespace espalier::plot
