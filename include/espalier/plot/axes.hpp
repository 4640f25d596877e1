// SPDX-License-Identifier: Apache-2.0
// Shared by curves and bars: title, legend, grid, spines, tick labels, and the map from data to
// points of the page. The legend is in rows above the plot area, so it never covers data.
#pragma once

#ifdef __CUDACC__
#error "espalier/plot/axes.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/plot/canvas.hpp>
#include <espalier/plot/ticks.hpp>

namespace espalier::plot {

struct LegendEntry {
  std::string label;
  Color color;
  bool box = false;  // a box instead of a line
};

struct Labels {
  std::string title, x, y;
};

inline constexpr TextStyle kTitleStyle{12.5, kInk, true};
inline constexpr TextStyle kLabelStyle{10, kInk};
inline constexpr TextStyle kTickStyle{9, kMuted};

/// A plot area inside a page.
class Axes {
 public:
  /// `y_ticks` and `y_note` determine the left margin; `bottom` is the height of the x labels.
  Axes(Canvas& canvas, Size page, const Labels& labels, const std::vector<LegendEntry>& legend,
       const Range& x, const Range& y, const std::vector<Tick>& y_ticks, const std::string& y_note,
       double bottom = 20)
      : canvas_(canvas), x_(x), y_(y) {
    double widest = 0;
    for (const Tick& t : y_ticks) widest = std::max(widest, canvas.text_width(t.label, kTickStyle));
    left_ = 12 + (labels.y.empty() ? 0 : 18) + widest + 6;
    width_ = std::max(page.width - left_ - 18, 20.0);
    double top = 14;
    if (!labels.title.empty()) {
      top += 13;
      canvas.text({left_, top}, labels.title, kTitleStyle);
      top += 9;
    }
    top = draw_legend(legend, top);
    if (!y_note.empty()) {
      top += 10;
      canvas.text({left_, top}, y_note, kTickStyle);
    }
    top_ = top + 8;
    const double foot = bottom + (labels.x.empty() ? 4 : 20);
    height_ = std::max(page.height - top_ - foot, 20.0);
    for (const Tick& t : y_ticks) {
      const double at = y_at(t.value);
      canvas.line({left_, at}, {left_ + width_, at}, kGrid);
      TextStyle style = kTickStyle;
      style.align = Align::right;
      canvas.text({left_ - 6, at + 3.2}, t.label, style);
    }
    TextStyle centered = kLabelStyle;
    centered.align = Align::center;
    canvas.text({left_ + width_ / 2, page.height - 9}, labels.x, centered);
    centered.angle = -1.5707963267948966;
    canvas.text({19, top_ + height_ / 2}, labels.y, centered);
  }

  double x_at(double v) const { return left_ + (v - x_.low) / x_.span() * width_; }
  double y_at(double v) const { return top_ + (y_.high - v) / y_.span() * height_; }
  Point at(double x, double y) const { return {x_at(x), y_at(y)}; }
  double left() const { return left_; }
  double top() const { return top_; }
  double width() const { return width_; }
  double height() const { return height_; }
  double bottom() const { return top_ + height_; }

  /// Grid lines and labels of x. The note ("×10⁶") follows the last label.
  void draw_x_ticks(const std::vector<Tick>& ticks, const std::string& note) const {
    TextStyle style = kTickStyle;
    style.align = Align::center;
    for (const Tick& t : ticks) {
      const double at = x_at(t.value);
      canvas_.line({at, top_}, {at, bottom()}, kGrid);
      canvas_.line({at, bottom()}, {at, bottom() + 3.5}, kSpine);
      canvas_.text({at, bottom() + 14}, t.label, style);
    }
    style.align = Align::right;
    canvas_.text({left_ + width_, bottom() + 25}, note, style);
  }
  /// Call after drawing the data, so that the lines are on top.
  void draw_spines() const {
    canvas_.line({left_, top_}, {left_, bottom()}, kSpine);
    canvas_.line({left_, bottom()}, {left_ + width_, bottom()}, kSpine);
  }
  void draw_message(const std::string& message) const {
    TextStyle style = kLabelStyle;
    style.color = kMuted;
    style.align = Align::center;
    canvas_.text({left_ + width_ / 2, top_ + height_ / 2}, message, style);
  }

 private:
  double draw_legend(const std::vector<LegendEntry>& legend, double top) {
    if (legend.empty()) return top;
    double x = left_, y = top + 11;
    TextStyle style = kTickStyle;
    style.color = kInk;
    std::size_t left_out = legend.size();
    for (const LegendEntry& entry : legend) {
      const double width = 22 + canvas_.text_width(entry.label, kTickStyle);
      if (x > left_ && x + width > left_ + width_) {
        if (y > top + 11 + 14 * 7) {  // the plot needs the room
          canvas_.text({left_, y + 14}, "and " + std::to_string(left_out) + " more", style);
          return y + 18;
        }
        x = left_;
        y += 14;
      }
      --left_out;
      if (entry.box) {
        canvas_.rectangle({x, y - 8}, {9, 9}, entry.color);
      } else {
        canvas_.line({x, y - 3.2}, {x + 15, y - 3.2}, entry.color, 2.2);
      }
      canvas_.text({x + (entry.box ? 14 : 20), y}, entry.label, style);
      x += width + 14;
    }
    return y + 4;
  }

  Canvas& canvas_;
  Range x_, y_;
  double left_ = 0, top_ = 0, width_ = 0, height_ = 0;
};

}  // namespace espalier::plot
