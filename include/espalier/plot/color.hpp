// SPDX-License-Identifier: Apache-2.0
// Colours. Series take the palette of Okabe and Ito (2008), which readers with any common colour
// vision deficiency can tell apart; maps take viridis (van der Walt and Smith 2015), perceptually
// uniform and monotone in lightness, here as nine control points of it, interpolated in sRGB.
#pragma once

#ifdef __CUDACC__
#error "espalier/plot/color.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace espalier::plot {

/// sRGB and opacity, each in [0, 1].
struct Color {
  double r = 0, g = 0, b = 0, a = 1;

  constexpr Color with_alpha(double alpha) const { return {r, g, b, alpha}; }
};

[[nodiscard]] constexpr Color rgb(std::uint32_t hex) {
  return {((hex >> 16) & 0xff) / 255.0, ((hex >> 8) & 0xff) / 255.0, (hex & 0xff) / 255.0, 1.0};
}

inline constexpr Color kWhite = rgb(0xffffff);
inline constexpr Color kInk = rgb(0x262626);      // text
inline constexpr Color kMuted = rgb(0x6b6b6b);    // tick labels, notes
inline constexpr Color kSpine = rgb(0x9a9a9a);    // axes
inline constexpr Color kGrid = rgb(0xe8e8e8);     // grid lines
inline constexpr Color kNoValue = rgb(0xe3e3e3);  // NaN cells

/// Colour of series `i`; after seven they repeat.
[[nodiscard]] inline Color series_color(std::size_t i) {
  static constexpr std::array<Color, 7> kPalette = {rgb(0x0072b2), rgb(0xd55e00), rgb(0x009e73),
                                                    rgb(0xcc79a7), rgb(0xe69f00), rgb(0x56b4e9),
                                                    rgb(0x4d4d4d)};
  return kPalette[i % kPalette.size()];
}

/// viridis at `t` in [0, 1], clamped.
[[nodiscard]] inline Color viridis(double t) {
  static constexpr std::array<Color, 9> kPoints = {rgb(0x440154), rgb(0x472d7b), rgb(0x3b528b),
                                                   rgb(0x2c728e), rgb(0x21918c), rgb(0x28ae80),
                                                   rgb(0x5ec962), rgb(0xaddc30), rgb(0xfde725)};
  const double at = std::clamp(t, 0.0, 1.0) * (kPoints.size() - 1);
  const auto i = std::min(static_cast<std::size_t>(at), kPoints.size() - 2);
  const double f = at - static_cast<double>(i);
  const Color &p = kPoints[i], &q = kPoints[i + 1];
  return {p.r + f * (q.r - p.r), p.g + f * (q.g - p.g), p.b + f * (q.b - p.b), 1.0};
}

/// Black or white, whichever reads better on `background` (WCAG relative luminance).
[[nodiscard]] inline Color contrast(const Color& background) {
  const auto linear = [](double c) {
    return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4);
  };
  const double luminance =
      0.2126 * linear(background.r) + 0.7152 * linear(background.g) + 0.0722 * linear(background.b);
  return luminance > 0.22 ? kInk : kWhite;
}

}  // namespace espalier::plot
