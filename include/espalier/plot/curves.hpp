// SPDX-License-Identifier: Apache-2.0
// Lines over a common x axis: losses, learning rates, scores over kept experts. A noisy line can be
// drawn pale under its smoothed version. NaN and infinite values leave a gap. Long lines are
// reduced to the lowest and highest value per point of the page, which looks equal and keeps files
// small.
#pragma once

#ifdef __CUDACC__
#error "espalier/plot/curves.hpp is host-only; include it from a .cpp"
#endif

#include <optional>

#include <espalier/plot/axes.hpp>

namespace espalier::plot {

/// Gaussian-weighted mean around each value; `sigma` counts neighbours. NaN values have no weight.
[[nodiscard]] inline std::vector<double> smoothed(const std::vector<double>& y, double sigma) {
  if (!(sigma > 0)) return y;
  const auto n = static_cast<std::ptrdiff_t>(y.size());
  const auto reach = static_cast<std::ptrdiff_t>(std::ceil(3 * sigma));
  std::vector<double> out(y.size());
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    double sum = 0, weights = 0;
    for (auto j = std::max<std::ptrdiff_t>(0, i - reach); j <= std::min(n - 1, i + reach); ++j) {
      const double d = static_cast<double>(j - i) / sigma, v = y[static_cast<std::size_t>(j)];
      if (!drawable(v)) continue;
      const double w = std::exp(-0.5 * d * d);
      sum += w * v;
      weights += w;
    }
    const bool here = drawable(y[static_cast<std::size_t>(i)]);
    out[static_cast<std::size_t>(i)] =
        here && weights > 0 ? sum / weights : std::numeric_limits<double>::quiet_NaN();
  }
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
    std::vector<Point> run;
    const auto flush = [&] {
      if (run.size() == 1) canvas.dot(run[0], width + 0.8, color);
      canvas.polyline(thinned(run), color, width);
      if (markers && run.size() > 1) {
        for (const Point& p : run) canvas.dot(p, width + 1.2, color);
      }
      run.clear();
    };
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double v = mapped(y[i]);
      if (drawable(v) && drawable(x[i])) {
        run.push_back(axes.at(x[i], v));
      } else {
        flush();
      }
    }
    flush();
  }

  /// Per half point of x at most four points: first, lowest, highest, last.
  static std::vector<Point> thinned(const std::vector<Point>& points) {
    if (points.size() < 4000) return points;
    std::vector<Point> out;
    for (std::size_t begin = 0; begin < points.size();) {
      const double column = std::floor(points[begin].x * 2);
      std::size_t end = begin, low = begin, high = begin;
      for (; end < points.size() && std::floor(points[end].x * 2) == column; ++end) {
        if (points[end].y < points[low].y) low = end;
        if (points[end].y > points[high].y) high = end;
      }
      std::size_t picks[] = {begin, std::min(low, high), std::max(low, high), end - 1};
      for (std::size_t k = 0; k < 4; ++k) {
        if (k == 0 || picks[k] != picks[k - 1]) out.push_back(points[picks[k]]);
      }
      begin = end;
    }
    return out;
  }
};

}  // namespace espalier::plot
