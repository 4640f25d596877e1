// SPDX-License-Identifier: Apache-2.0
// A page to draw on, over Cairo: one drawing gives PNG (at twice the size, for sharp screens), SVG
// and PDF. A plot is anything with `Size size() const` and `void draw(Canvas&) const`:
//   save(heatmap, "reap.png");  save(heatmap, "reap.svg");  std::string svg = encode(curves, svg);
// Lengths are points (1/72 inch), y grows downwards. Files appear under their name when complete.
// A page that is too large for its format is drawn smaller.
#pragma once

#ifdef __CUDACC__
#error "espalier/plot/canvas.hpp is host-only; include it from a .cpp"
#endif

#include <cairo-pdf.h>
#include <cairo-svg.h>
#include <cairo.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <espalier/core/control_characters.hpp>
#include <espalier/core/error.hpp>
#include <espalier/io/file.hpp>
#include <espalier/plot/color.hpp>

namespace espalier::plot {

struct Size {
  double width = 0, height = 0;
};
struct Point {
  double x = 0, y = 0;
};
enum class Format { png, svg, pdf };

/// The position of a text's anchor in its box.
enum class Align { left, center, right };

struct TextStyle {
  double size = 9;
  Color color = kInk;
  bool bold = false;
  Align align = Align::left;
  double angle = 0;  // radians, clockwise
};

namespace detail {

inline void check(cairo_status_t status, const char* what) {
  ESP_REQUIRE(status == CAIRO_STATUS_SUCCESS, Error, "plot: cannot ", what, ": ",
              cairo_status_to_string(status));
}

struct CairoDelete {
  void operator()(cairo_surface_t* s) const { cairo_surface_destroy(s); }
  void operator()(cairo_t* c) const { cairo_destroy(c); }
};
using Surface = std::unique_ptr<cairo_surface_t, CairoDelete>;
using Context = std::unique_ptr<cairo_t, CairoDelete>;

inline cairo_status_t append_to_string(void* text, const unsigned char* data, unsigned int bytes) {
  try {
    static_cast<std::string*>(text)->append(reinterpret_cast<const char*>(data), bytes);
    return CAIRO_STATUS_SUCCESS;
  } catch (...) {
    return CAIRO_STATUS_NO_MEMORY;
  }
}

/// Replaces ill-formed bytes by '?': Cairo stops all drawing at a text that is not UTF-8.
inline std::string printable(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t n = utf8_length(text, at);
    const bool control = n == 1 && static_cast<unsigned char>(text[at]) < 0x20;
    out += n == 0 ? "?" : control ? " " : text.substr(at, n);
    at += n == 0 ? 1 : n;
  }
  return out;
}

}  // namespace detail

class Canvas {
 public:
  /// Draws `scale` times as large as it is told.
  explicit Canvas(cairo_surface_t* surface, double scale = 1) : context_(cairo_create(surface)) {
    detail::check(cairo_status(context_.get()), "draw");
    if (scale != 1) cairo_scale(context_.get(), scale, scale);
    cairo_set_line_join(context_.get(), CAIRO_LINE_JOIN_ROUND);
  }

  void rectangle(Point corner, Size size, const Color& fill) {
    cairo_rectangle(context_.get(), corner.x, corner.y, size.width, size.height);
    source(fill);
    cairo_fill(context_.get());
  }
  void frame(Point corner, Size size, const Color& color, double width = 0.75) {
    cairo_rectangle(context_.get(), corner.x, corner.y, size.width, size.height);
    stroke(color, width);
  }
  void line(Point from, Point to, const Color& color, double width = 0.75) {
    cairo_move_to(context_.get(), from.x, from.y);
    cairo_line_to(context_.get(), to.x, to.y);
    stroke(color, width);
  }
  void polyline(const std::vector<Point>& points, const Color& color, double width = 1.5) {
    if (points.size() < 2) return;
    cairo_move_to(context_.get(), points[0].x, points[0].y);
    for (std::size_t i = 1; i < points.size(); ++i) {
      cairo_line_to(context_.get(), points[i].x, points[i].y);
    }
    stroke(color, width);
  }
  void dot(Point center, double radius, const Color& color) {
    cairo_new_sub_path(context_.get());
    cairo_arc(context_.get(), center.x, center.y, radius, 0, 6.283185307179586);
    source(color);
    cairo_fill(context_.get());
  }
  /// `at` is on the base line.
  void text(Point at, std::string_view text, const TextStyle& style) {
    const std::string clean = detail::printable(text);
    select_font(style);
    cairo_save(context_.get());
    cairo_translate(context_.get(), at.x, at.y);
    cairo_rotate(context_.get(), style.angle);
    const double shift = style.align == Align::left     ? 0.0
                         : style.align == Align::center ? 0.5
                                                        : 1.0;
    cairo_move_to(context_.get(), shift == 0.0 ? 0.0 : -shift * advance(clean), 0);
    source(style.color);
    cairo_show_text(context_.get(), clean.c_str());
    cairo_restore(context_.get());
  }
  double text_width(std::string_view text, const TextStyle& style) {
    select_font(style);
    return advance(detail::printable(text));
  }
  /// Clips drawing to the rectangle until unclip().
  void clip(Point corner, Size size) {
    cairo_save(context_.get());
    cairo_rectangle(context_.get(), corner.x, corner.y, size.width, size.height);
    cairo_clip(context_.get());
  }
  void unclip() { cairo_restore(context_.get()); }

  void check() const { detail::check(cairo_status(context_.get()), "draw"); }

 private:
  void source(const Color& c) { cairo_set_source_rgba(context_.get(), c.r, c.g, c.b, c.a); }
  void stroke(const Color& color, double width) {
    source(color);
    cairo_set_line_width(context_.get(), width);
    cairo_stroke(context_.get());
  }
  void select_font(const TextStyle& style) {
    cairo_select_font_face(context_.get(), "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           style.bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(context_.get(), style.size);
  }
  double advance(const std::string& clean) {
    cairo_text_extents_t extents;
    cairo_text_extents(context_.get(), clean.c_str(), &extents);
    return extents.x_advance;
  }

  detail::Context context_;
};

/// For the layout of a plot whose size depends on its texts.
[[nodiscard]] inline double text_width(std::string_view text, const TextStyle& style) {
  const detail::Surface scratch(cairo_image_surface_create(CAIRO_FORMAT_A8, 1, 1));
  return Canvas(scratch.get()).text_width(text, style);
}

inline constexpr double kPngScale = 2.0;

/// The scale at which a page is drawn: 2 for PNG and 1 otherwise, less for a page that is too
/// large. Images take at most 16384 pixels a side (Cairo 32767, many viewers half of it) and 2^25
/// in all (128 MiB while they are drawn); pages at most 14400 points a side, as PDF allows.
[[nodiscard]] inline double scale_of(const Size& size, Format format) {
  const bool png = format == Format::png;
  const double side = png ? 16384 : 14400, width = std::max(size.width, 1.0),
               height = std::max(size.height, 1.0);
  double scale = std::min({png ? kPngScale : 1.0, side / width, side / height});
  if (png) scale = std::min(scale, std::sqrt(0x1p25 / width / height));
  return scale;
}

/// The bytes of a file.
template <class Plot>
[[nodiscard]] std::string encode(const Plot& plot, Format format) {
  const Size size = plot.size();
  const double scale = scale_of(size, format);
  const double width = size.width * scale, height = size.height * scale;
  std::string out;
  detail::Surface surface;
  if (format == Format::png) {
    const auto pixels = [](double length) {
      return std::max(static_cast<int>(std::ceil(length)), 1);
    };
    surface.reset(cairo_image_surface_create(CAIRO_FORMAT_RGB24, pixels(width), pixels(height)));
    cairo_surface_set_device_scale(surface.get(), scale, scale);
  } else if (format == Format::svg) {
    surface.reset(
        cairo_svg_surface_create_for_stream(detail::append_to_string, &out, width, height));
  } else {
    surface.reset(
        cairo_pdf_surface_create_for_stream(detail::append_to_string, &out, width, height));
  }
  detail::check(cairo_surface_status(surface.get()), "create a page");
  {
    Canvas canvas(surface.get(), format == Format::png ? 1 : scale);
    canvas.rectangle({0, 0}, size, kWhite);
    plot.draw(canvas);
    canvas.check();
  }
  cairo_surface_flush(surface.get());
  if (format == Format::png) {
    detail::check(cairo_surface_write_to_png_stream(surface.get(), detail::append_to_string, &out),
                  "write");
  }
  cairo_surface_finish(surface.get());
  detail::check(cairo_surface_status(surface.get()), "write");
  return out;
}

/// The format is that of the file's extension. @throws UsageError for another one, IoError
template <class Plot>
void save(const Plot& plot, const std::filesystem::path& path) {
  const std::string extension = path.extension().string();
  const bool png = extension == ".png", svg = extension == ".svg", pdf = extension == ".pdf";
  ESP_REQUIRE(png || svg || pdf, UsageError, path.string(),
              ": a plot is a .png, .svg or .pdf file");
  io::write_text(path, encode(plot, png ? Format::png : svg ? Format::svg : Format::pdf));
}

/// save(), but work that has its numbers does not fail for a picture.
/// @returns why there is no picture: "run/loss.png: cannot write: ..."; empty if there is one
template <class Plot>
[[nodiscard]] std::string save_or_reason(const Plot& plot, const std::filesystem::path& path) {
  try {
    save(plot, path);
    return {};
  } catch (const std::exception& e) {
    const std::string name = path.string(), what = e.what();
    return what.starts_with(name) ? what : name + ": " + what;
  }
}

}  // namespace espalier::plot
