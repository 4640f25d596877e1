// SPDX-License-Identifier: Apache-2.0
// A matrix as coloured cells: rows are layers, columns experts. Values are printed in the cells if
// they fit, dropped experts are struck through, NaN cells are grey. A constant matrix has the
// colour of the middle of the map.
#pragma once

#ifdef __CUDACC__
#error "espalier/plot/heatmap.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>

#include <espalier/plot/axes.hpp>

namespace espalier::plot {

struct Heatmap {
  std::string title;
  std::string x_label = "expert", y_label = "layer";
  std::vector<std::vector<double>> values;   // [rows][columns], all rows equally long
  std::string value_label{};                 // beside the colour bar
  std::vector<std::vector<bool>> dropped{};  // empty, or as large as values

  Size size() const {
    const Layout l = layout();
    return {std::max(l.left + l.width() + 74 + (value_label.empty() ? 0 : 14), l.title_width),
            l.top + std::max(l.height(), 60.0) + 42};
  }

  void draw(Canvas& canvas) const {
    check();
    const Layout l = layout();
    Range range;
    for (const auto& row : values) {
      for (const double v : row) range.add(v);
    }
    const Range usable = range.usable();
    const Scale scale(range.empty() ? usable : range);
    const int decimals = cell_decimals(scale);
    canvas.text({l.left, 27}, title, kTitleStyle);
    draw_notes(canvas, l);
    for (std::size_t r = 0; r < values.size(); ++r) {
      for (std::size_t c = 0; c < values[r].size(); ++c) {
        draw_cell(canvas, l, r, c, usable, scale, decimals);
      }
    }
    if (l.rows == 0 || l.columns == 0) {
      canvas.text({l.left, l.top + 30}, "no data", TextStyle{10, kMuted});
      return;
    }
    draw_axis_labels(canvas, l);
    draw_color_bar(canvas, l, usable, scale);
  }

 private:
  struct Layout {
    std::size_t rows = 0, columns = 0;
    double cell_width = 0, cell_height = 0, left = 0, top = 0, title_width = 0;
    double width() const { return static_cast<double>(columns) * cell_width; }
    double height() const { return static_cast<double>(rows) * cell_height; }
  };

  bool any_dropped() const {
    for (const auto& row : dropped) {
      if (std::find(row.begin(), row.end(), true) != row.end()) return true;
    }
    return false;
  }
  bool any_without_value() const {
    for (const auto& row : values) {
      for (const double v : row) {
        if (!drawable(v)) return true;
      }
    }
    return false;
  }

  void check() const {
    for (std::size_t r = 0; r < values.size(); ++r) {
      ESP_REQUIRE(values[r].size() == values[0].size(), ShapeError, "heatmap: row ", r, " has ",
                  values[r].size(), " columns, row 0 has ", values[0].size());
    }
    ESP_REQUIRE(dropped.empty() || dropped.size() == values.size(), ShapeError,
                "heatmap: dropped has ", dropped.size(), " rows, values has ", values.size());
    for (std::size_t r = 0; r < dropped.size(); ++r) {
      ESP_REQUIRE(dropped[r].size() == values[r].size(), ShapeError, "heatmap: dropped[", r,
                  "] has ", dropped[r].size(), " columns, values has ", values[r].size());
    }
  }

  Layout layout() const {
    Layout l;
    l.rows = values.size();
    l.columns = l.rows == 0 ? 0 : values[0].size();
    const double columns = static_cast<double>(std::max<std::size_t>(l.columns, 1));
    const double rows = static_cast<double>(std::max<std::size_t>(l.rows, 1));
    l.cell_width = std::clamp(720 / columns, 5.0, 46.0);
    l.cell_height = std::clamp(640 / rows, 5.0, 24.0);
    const std::string last = std::to_string(l.rows == 0 ? 0 : l.rows - 1);
    l.left = 34 + text_width(last, kTickStyle) + 6;
    l.top = any_dropped() || any_without_value() ? 54 : 38;
    l.title_width = l.left + text_width(title, kTitleStyle) + 16;
    return l;
  }

  void draw_notes(Canvas& canvas, const Layout& l) const {
    double x = l.left;
    const auto note = [&](const char* text, bool struck) {
      canvas.rectangle({x, 36}, {10, 10}, struck ? kGrid : kNoValue);
      if (struck) canvas.line({x + 1.5, 44.5}, {x + 8.5, 37.5}, kInk, 1.1);
      canvas.text({x + 15, 44.5}, text, kTickStyle);
      x += 15 + canvas.text_width(text, kTickStyle) + 16;
    };
    if (any_dropped()) note("dropped", true);
    if (any_without_value()) note("no value", false);
  }

  static double position(double v, const Range& range) { return (v - range.low) / range.span(); }

  /// The number of decimals for three significant digits of the largest value; 0 for integers.
  int cell_decimals(const Scale& scale) const {
    bool whole = scale.exponent == 0;
    double largest = 0;
    for (const auto& row : values) {
      for (const double u : row) {
        if (!drawable(u)) continue;
        whole = whole && u == std::floor(u);
        largest = std::max(largest, std::abs(scale.shown(u)));
      }
    }
    const int power = largest > 0 ? static_cast<int>(std::floor(std::log10(largest))) : 0;
    return whole ? 0 : std::clamp(2 - power, 0, 4);
  }

  void draw_cell(Canvas& canvas, const Layout& l, std::size_t r, std::size_t c, const Range& range,
                 const Scale& scale, int decimals) const {
    const double v = values[r][c];
    const Point corner{l.left + static_cast<double>(c) * l.cell_width,
                       l.top + static_cast<double>(r) * l.cell_height};
    const double gap = l.cell_width >= 12 && l.cell_height >= 12 ? 0.5 : 0;
    const bool valid = drawable(v);
    const Color fill = valid ? viridis(position(v, range)) : kNoValue;
    canvas.rectangle({corner.x + gap, corner.y + gap},
                     {l.cell_width - 2 * gap, l.cell_height - 2 * gap}, fill);
    const Color ink = contrast(fill);
    if (!dropped.empty() && dropped[r][c]) {
      canvas.line({corner.x + 2, corner.y + l.cell_height - 2},
                  {corner.x + l.cell_width - 2, corner.y + 2}, ink.with_alpha(0.5), 1.2);
    }
    const TextStyle style{std::min(8.5, l.cell_height * 0.5), ink, false, Align::center};
    if (!valid || style.size < 6) return;
    const std::string text = detail::plain(scale.shown(v), decimals);
    if (canvas.text_width(text, style) > l.cell_width - 5) return;
    canvas.text({corner.x + l.cell_width / 2, corner.y + l.cell_height / 2 + style.size * 0.36},
                text, style);
  }

  void draw_axis_labels(Canvas& canvas, const Layout& l) const {
    const auto step = [](double cell, double need) {
      for (const int s : {1, 2, 5, 10, 20, 50, 100}) {
        if (cell * s >= need) return static_cast<std::size_t>(s);
      }
      return std::size_t{200};
    };
    TextStyle style = kTickStyle;
    style.align = Align::right;
    for (std::size_t r = 0; r < l.rows; r += step(l.cell_height, 11)) {
      const double y = l.top + (static_cast<double>(r) + 0.5) * l.cell_height + 3.2;
      canvas.text({l.left - 6, y}, std::to_string(r), style);
    }
    style.align = Align::center;
    const double need = 8 + canvas.text_width(std::to_string(l.columns), kTickStyle);
    for (std::size_t c = 0; c < l.columns; c += step(l.cell_width, need)) {
      const double x = l.left + (static_cast<double>(c) + 0.5) * l.cell_width;
      canvas.text({x, l.top + l.height() + 13}, std::to_string(c), style);
    }
    TextStyle label = kLabelStyle;
    label.align = Align::center;
    canvas.text({l.left + l.width() / 2, l.top + l.height() + 30}, x_label, label);
    label.angle = -1.5707963267948966;
    canvas.text({19, l.top + std::max(l.height(), 40.0) / 2}, y_label, label);
  }

  void draw_color_bar(Canvas& canvas, const Layout& l, const Range& range,
                      const Scale& scale) const {
    const double x = l.left + l.width() + 16, width = 11;
    const double height = std::clamp(l.height(), 60.0, 260.0);
    constexpr int kSteps = 128;
    for (int i = 0; i < kSteps; ++i) {
      const double part = height / kSteps;
      // Strips overlap, so that no hairlines show between them.
      canvas.rectangle({x, l.top + i * part}, {width, std::min(2 * part, height - i * part)},
                       viridis(1 - (i + 0.5) / kSteps));
    }
    for (const Tick& t : linear_ticks(range, std::max(3, static_cast<int>(height / 32)), scale)) {
      const double y = l.top + (1 - position(t.value, range)) * height;
      canvas.line({x + width, y}, {x + width + 3, y}, kSpine);
      canvas.text({x + width + 6, y + 3.2}, t.label, kTickStyle);
    }
    if (!scale.note.empty()) canvas.text({x, l.top - 6}, scale.note, kTickStyle);
    TextStyle style = kTickStyle;
    style.align = Align::center;
    style.angle = -1.5707963267948966;
    if (!value_label.empty()) canvas.text({x + width + 52, l.top + height / 2}, value_label, style);
  }
};

}  // namespace espalier::plot
