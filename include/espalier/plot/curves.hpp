// SPDX-License-Identifier: Apache-2.0
// Lines over a common x axis: losses, learning rates, scores over kept experts. A noisy line can be
// drawn pale under its smoothed version. NaN and infinite values leave a gap. Long lines are
// reduced to the lowest and highest value per point of the page, which looks equal and bounds the
// size of a picture, and smoothing takes linear time: a log may have a million steps.
#pragma once

#ifdef __CUDACC__
#error "espalier/plot/curves.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <array>
#include <optional>

#include <espalier/plot/axes.hpp>

namespace espalier::plot {

namespace detail {

/// Means of `width` (odd) values around each; beyond the ends are zeros. In linear time by sums
/// within blocks: a running sum would carry the rounding error of a large value along.
inline std::vector<double> box_means(const std::vector<double>& y, std::size_t width) {
  if (width <= 1) return y;
  const std::size_t n = y.size(), radius = width / 2;
  std::vector<double> padded(n + 2 * radius, 0.0);
  std::copy(y.begin(), y.end(), padded.begin() + static_cast<std::ptrdiff_t>(radius));
  std::vector<double> from_begin = padded, to_end = padded;  // of the block of `width` values
  for (std::size_t i = 1; i < padded.size(); ++i) {
    if (i % width != 0) from_begin[i] += from_begin[i - 1];
  }
  for (std::size_t i = padded.size() - 1; i-- > 0;) {
    if ((i + 1) % width != 0) to_end[i] += to_end[i + 1];
  }
  std::vector<double> out(n);
  for (std::size_t i = 0; i < n; ++i) {
    const double sum = i % width == 0 ? to_end[i] : to_end[i] + from_begin[i + width - 1];
    out[i] = sum / static_cast<double>(width);
  }
  return out;
}

/// Odd widths of three boxes whose variances add up to about sigma^2 (a box of w values has
/// (w^2 - 1) / 12). From sigma 2 on their convolution differs from the Gaussian by at most 7 % of
/// its peak.
inline std::array<std::size_t, 3> box_widths(double sigma) {
  const double ideal = std::sqrt(4 * sigma * sigma + 1);
  auto low = static_cast<std::size_t>(ideal);
  if (low % 2 == 0) --low;
  const double l = static_cast<double>(low);
  const double narrow = (12 * sigma * sigma - 3 * l * l - 12 * l - 9) / (-4 * l - 4);
  std::array<std::size_t, 3> widths{};
  for (std::size_t i = 0; i < 3; ++i) {
    widths[i] = static_cast<double>(i) < std::round(narrow) ? low : low + 2;
  }
  return widths;
}

}  // namespace detail

/// Weighted mean around each value, in linear time: three box filters in place of a Gaussian of
/// `sigma` neighbours. Values that are not drawable have no weight and stay gaps.
[[nodiscard]] inline std::vector<double> smoothed(const std::vector<double>& y, double sigma) {
  if (!(sigma > 0) || y.empty()) return y;
  const auto widths = detail::box_widths(std::min(sigma, static_cast<double>(y.size())));
  // What a box moves beyond the ends comes back with the next one: keep it.
  const std::size_t reach = widths[0] / 2 + widths[1] / 2 + widths[2] / 2;
  std::vector<double> sums(y.size() + 2 * reach, 0.0), weights = sums;
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (!drawable(y[i])) continue;
    sums[reach + i] = y[i];
    weights[reach + i] = 1;
  }
  for (const std::size_t width : widths) {
    sums = detail::box_means(sums, width);
    weights = detail::box_means(weights, width);
  }
  std::vector<double> out(y.size(), std::numeric_limits<double>::quiet_NaN());
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (drawable(y[i])) out[i] = sums[reach + i] / weights[reach + i];
  }
  return out;
}

/// Points of a line whose picture looks the same, for long lines: in every half point of x the
/// first, the lowest, the highest and the last one. A NaN x is a gap; gaps within half a point
/// close. Of lines that run to and fro so often that this does not help, every nth point.
[[nodiscard]] inline std::vector<Point> thinned(const std::vector<Point>& points) {
  constexpr std::size_t kFew = 4000, kMany = 50000;
  if (points.size() < kFew) return points;
  std::vector<Point> out;
  for (std::size_t begin = 0; begin < points.size();) {
    if (std::isnan(points[begin].x)) {
      if (!out.empty() && !std::isnan(out.back().x)) out.push_back(points[begin]);
      ++begin;
      continue;
    }
    const double column = std::floor(points[begin].x * 2);
    std::size_t end = begin, low = begin, high = begin, last = begin;
    for (; end < points.size(); ++end) {
      if (std::isnan(points[end].x)) continue;
      if (std::floor(points[end].x * 2) != column) break;
      if (points[end].y < points[low].y) low = end;
      if (points[end].y > points[high].y) high = end;
      last = end;
    }
    const std::size_t picks[] = {begin, std::min(low, high), std::max(low, high), last};
    for (std::size_t k = 0; k < 4; ++k) {
      if (k == 0 || picks[k] != picks[k - 1]) out.push_back(points[picks[k]]);
    }
    if (last + 1 < end) out.push_back(points[last + 1]);  // a gap follows
    begin = end;
  }
  if (out.size() <= kMany) return out;
  const std::size_t stride = out.size() / kMany + 1;
  std::size_t kept = 0;
  for (std::size_t i = 0; i < out.size(); i += stride) out[kept++] = out[i];
  out.resize(kept);
  return out;
}

struct Series {
  std::string label;
  std::vector<double> x, y;      // equally long
  double smoothing = 0;          // sigma in values; 0: no smoothed line
  std::optional<Color> color{};  // else the palette's
  bool markers = false;
};

struct Curves {
  Labels labels;
  std::vector<Series> series;
  bool log_y = false;  // values <= 0 leave a gap
  Size page{560, 340};

  Size size() const { return page; }

  void draw(Canvas& canvas) const {
    Range x, y;
    for (const Series& s : series) {
      ESP_REQUIRE(s.x.size() == s.y.size(), ShapeError, "curves: series '", s.label, "' has ",
                  s.x.size(), " x values and ", s.y.size(), " y values");
      for (std::size_t i = 0; i < s.y.size(); ++i) {
        const double v = mapped(s.y[i]);
        if (!drawable(v) || !drawable(s.x[i])) continue;
        x.add(s.x[i]);
        y.add(v);
      }
    }
    const bool nothing = x.empty();
    x = x.usable();
    y = y.usable();
    const double margin = 0.04 * y.span();
    y = {y.low - margin, y.high + margin};
    const Scale y_scale(log_y ? Range{0, 1} : y), x_scale(x);
    const auto y_ticks = log_y ? log_ticks(y) : linear_ticks(y, 6, y_scale);
    Axes axes(canvas, page, labels, legend(), x, y, y_ticks, y_scale.note);
    axes.draw_x_ticks(linear_ticks(x, static_cast<int>(page.width / 75), x_scale), x_scale.note);
    canvas.clip({axes.left() - 3, axes.top() - 3}, {axes.width() + 6, axes.height() + 6});
    for (std::size_t i = 0; i < series.size(); ++i) draw_series(canvas, axes, i);
    canvas.unclip();
    axes.draw_spines();
    if (nothing) axes.draw_message("no data");
  }

 private:
  double mapped(double v) const { return log_y ? (v > 0 ? std::log10(v) : std::nan("")) : v; }
  Color color(std::size_t i) const { return series[i].color.value_or(series_color(i)); }

  std::vector<LegendEntry> legend() const {
    std::vector<LegendEntry> entries;
    for (std::size_t i = 0; i < series.size(); ++i) {
      const Series& s = series[i];
      if (s.label.empty() || (series.size() == 1 && s.smoothing <= 0)) continue;
      if (s.smoothing <= 0) {
        entries.push_back({s.label, color(i)});
        continue;
      }
      if (series.size() == 1) entries.push_back({s.label, color(i).with_alpha(0.35)});
      entries.push_back({s.label + ", smoothed", color(i)});
    }
    return entries;
  }

  void draw_series(Canvas& canvas, const Axes& axes, std::size_t i) const {
    const Series& s = series[i];
    if (s.smoothing > 0) {
      draw_line(canvas, axes, s.x, s.y, color(i).with_alpha(0.28), 1.0, false);
      draw_line(canvas, axes, s.x, smoothed(s.y, s.smoothing), color(i), 2.0, false);
    } else {
      draw_line(canvas, axes, s.x, s.y, color(i), 1.6, s.markers);
    }
  }

  void draw_line(Canvas& canvas, const Axes& axes, const std::vector<double>& x,
                 const std::vector<double>& y, const Color& color, double width,
                 bool markers) const {
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    std::vector<Point> points, run;
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double v = mapped(y[i]);
      const bool there = drawable(v) && drawable(x[i]);
      points.push_back(there ? axes.at(x[i], v) : Point{kNone, kNone});
    }
    points = thinned(points);
    points.push_back({kNone, kNone});  // ends the last run
    for (const Point& p : points) {
      if (!std::isnan(p.x)) {
        run.push_back(p);
        continue;
      }
      if (run.size() == 1) canvas.dot(run[0], width + 0.8, color);
      canvas.polyline(run, color, width);
      if (markers && run.size() > 1) {
        for (const Point& marked : run) canvas.dot(marked, width + 1.2, color);
      }
      run.clear();
    }
  }
};

}  // namespace espalier::plot
