// SPDX-License-Identifier: Apache-2.0
// Grouped bars with error bars: accuracy by task and model. Bars begin at zero; NaN leaves an
// empty place. A dashed line can show the accuracy of chance.
#pragma once

#ifdef __CUDACC__
#error "espalier/plot/bars.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/plot/axes.hpp>

namespace espalier::plot {

struct BarSeries {
  std::string label;
  std::vector<double> values;    // one per category
  std::vector<double> errors{};  // half-widths; empty: no error bars
};

struct Bars {
  Labels labels;
  std::vector<std::string> categories;
  std::vector<BarSeries> series;
  double reference = std::numeric_limits<double>::quiet_NaN();
  std::string reference_label{};
  int value_decimals = -1;  // >= 0: the value is printed above its bar if it fits
  Size page{560, 340};

  Size size() const { return page; }

  void draw(Canvas& canvas) const {
    Range y;
    for (const BarSeries& s : series) add_range(s, y);
    const bool nothing = y.empty();
    if (!nothing) y.add(0);
    y.add(reference);
    y = y.usable();
    if (y.high > 0) y.high += 0.08 * y.span();
    if (y.low < 0) y.low -= 0.08 * y.span();
    const Scale scale(y);
    const double slot = (page.width - 80) / static_cast<double>(std::max<std::size_t>(count(), 1));
    const double widest = widest_category(canvas);
    const bool tilted = widest > slot - 6;
    const Axes axes(canvas, page, labels, legend(), {0, static_cast<double>(count())}, y,
                    linear_ticks(y, 6, scale), scale.note, tilted ? 14 + widest * 0.58 : 20);
    draw_categories(canvas, axes, tilted);
    for (std::size_t s = 0; s < series.size(); ++s) draw_series(canvas, axes, s);
    if (drawable(reference)) draw_reference(canvas, axes);
    if (y.low < 0 && y.high > 0) {
      canvas.line({axes.left(), axes.y_at(0)}, {axes.left() + axes.width(), axes.y_at(0)}, kSpine);
    }
    axes.draw_spines();
    if (nothing) axes.draw_message("no data");
  }

 private:
  std::size_t count() const { return categories.size(); }

  void add_range(const BarSeries& s, Range& y) const {
    ESP_REQUIRE(s.values.size() == count(), ShapeError, "bars: series '", s.label, "' has ",
                s.values.size(), " values for ", count(), " categories");
    ESP_REQUIRE(s.errors.empty() || s.errors.size() == count(), ShapeError, "bars: series '",
                s.label, "' has ", s.errors.size(), " errors for ", count(), " categories");
    for (std::size_t i = 0; i < s.values.size(); ++i) {
      const double e = s.errors.empty() || !drawable(s.errors[i]) ? 0.0 : s.errors[i];
      y.add(s.values[i] - e);
      y.add(s.values[i] + e);
    }
  }
  double widest_category(Canvas& canvas) const {
    double widest = 0;
    for (const std::string& c : categories) {
      widest = std::max(widest, canvas.text_width(c, kTickStyle));
    }
    return widest;
  }
  std::vector<LegendEntry> legend() const {
    std::vector<LegendEntry> entries;
    for (std::size_t s = 0; series.size() > 1 && s < series.size(); ++s) {
      entries.push_back({series[s].label, series_color(s), true});
    }
    return entries;
  }
  void draw_categories(Canvas& canvas, const Axes& axes, bool tilted) const {
    TextStyle style = kTickStyle;
    style.align = tilted ? Align::right : Align::center;
    style.angle = tilted ? -0.6 : 0;
    for (std::size_t i = 0; i < count(); ++i) {
      const double x = axes.x_at(static_cast<double>(i) + 0.5);
      canvas.text({x + (tilted ? 4 : 0), axes.bottom() + (tilted ? 11 : 14)}, categories[i], style);
    }
  }
  void draw_series(Canvas& canvas, const Axes& axes, std::size_t s) const {
    const double n = static_cast<double>(series.size());
    const double slot = axes.width() / static_cast<double>(count());
    const double width = std::min(slot * 0.76 / n, 46.0);
    for (std::size_t i = 0; i < count(); ++i) {
      const double v = series[s].values[i];
      if (!drawable(v)) continue;
      const double middle =
          axes.x_at(static_cast<double>(i) + 0.5) + (static_cast<double>(s) - (n - 1) / 2) * width;
      const double zero = axes.y_at(0), tip = axes.y_at(v), gap = n > 1 ? 0.8 : 0.0;
      canvas.rectangle({middle - width / 2 + gap, std::min(zero, tip)},
                       {width - 2 * gap, std::abs(zero - tip)}, series_color(s));
      const double e = series[s].errors.empty() ? 0.0 : series[s].errors[i];
      double top = std::min(zero, tip);
      if (drawable(e) && e > 0) {
        const double high = axes.y_at(v + e), low = axes.y_at(v - e),
                     cap = std::min(width / 4, 4.0);
        canvas.line({middle, low}, {middle, high}, kInk, 1);
        canvas.line({middle - cap, low}, {middle + cap, low}, kInk, 1);
        canvas.line({middle - cap, high}, {middle + cap, high}, kInk, 1);
        top = std::min(top, high);
      }
      draw_value(canvas, v, middle, top, width);
    }
  }
  void draw_value(Canvas& canvas, double v, double middle, double top, double width) const {
    if (value_decimals < 0) return;
    const std::string text = detail::plain(v, value_decimals);
    const TextStyle style{7.5, kInk, false, Align::center};
    if (canvas.text_width(text, style) <= width + 4) canvas.text({middle, top - 3}, text, style);
  }
  void draw_reference(Canvas& canvas, const Axes& axes) const {
    const double y = axes.y_at(reference), right = axes.left() + axes.width();
    for (double x = axes.left(); x < right; x += 7) {
      canvas.line({x, y}, {std::min(x + 4, right), y}, kMuted, 1);
    }
    TextStyle style{8, kMuted, false, Align::right};
    canvas.text({right, y - 3}, reference_label, style);
  }
};

}  // namespace espalier::plot
