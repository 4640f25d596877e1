// SPDX-License-Identifier: Apache-2.0
// Plots: files that decoders accept, at the size they should have; data that is empty, constant or
// not finite; ticks, ranges and colours as numbers.
#include <algorithm>

#include <espalier/plot/bars.hpp>
#include <espalier/plot/curves.hpp>
#include <espalier/plot/heatmap.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::plot;
using espalier::test::message_of;

namespace {

const double kNan = std::nan("");

std::uint32_t big_endian(const std::string& bytes, std::size_t at) {
  std::uint32_t v = 0;
  for (std::size_t i = 0; i < 4; ++i) v = v << 8 | static_cast<unsigned char>(bytes[at + i]);
  return v;
}

/// Signature, then a header chunk with the size, and an end chunk.
template <class Plot>
void require_png(const Plot& plot) {
  const std::string png = encode(plot, Format::png);
  REQUIRE(png.size() > 100);
  REQUIRE(png.substr(0, 8) == "\x89PNG\r\n\x1a\n");
  REQUIRE(png.substr(12, 4) == "IHDR");
  REQUIRE(big_endian(png, 16) == static_cast<std::uint32_t>(std::ceil(2 * plot.size().width)));
  REQUIRE(big_endian(png, 20) == static_cast<std::uint32_t>(std::ceil(2 * plot.size().height)));
  REQUIRE(png.substr(png.size() - 8, 4) == "IEND");
}

/// Every tag that opens closes, attributes are quoted, nothing bare is left: a small XML check.
void require_well_formed(const std::string& xml) {
  std::vector<std::string> open;
  std::size_t tags = 0;
  for (std::size_t at = xml.find('<'); at != std::string::npos; at = xml.find('<', at + 1)) {
    const std::size_t end = xml.find('>', at);
    REQUIRE(end != std::string::npos);
    std::string tag = xml.substr(at + 1, end - at - 1);
    REQUIRE(tag.find('<') == std::string::npos);
    REQUIRE(std::count(tag.begin(), tag.end(), '"') % 2 == 0);
    ++tags;
    if (tag[0] == '?' || tag[0] == '!') continue;
    const std::string name = tag.substr(0, tag.find_first_of(" \n/", 1));
    if (tag[0] == '/') {
      REQUIRE_FALSE(open.empty());
      REQUIRE("/" + open.back() == tag);
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(name);
    }
  }
  REQUIRE(open.empty());
  REQUIRE(tags > 5);
}

template <class Plot>
void require_all_formats(const Plot& plot) {
  require_png(plot);
  const std::string svg = encode(plot, Format::svg);
  REQUIRE(svg.find("<svg") != std::string::npos);
  require_well_formed(svg);
  REQUIRE(svg.find("nan") == std::string::npos);
  REQUIRE(encode(plot, Format::pdf).substr(0, 5) == "%PDF-");
}

Heatmap heatmap(std::vector<std::vector<double>> values) {
  Heatmap map;
  map.title = "title <&> \"quoted\" äöü";
  map.values = std::move(values);
  return map;
}

}  // namespace

TEST_CASE("heatmap: any finite, constant, empty or missing data gives whole files") {
  Heatmap full = heatmap({{1, 2, 3}, {4, kNan, HUGE_VAL}});
  full.dropped = {{true, false, false}, {false, true, false}};
  full.value_label = "score";
  require_all_formats(full);
  for (const auto& values : std::vector<std::vector<std::vector<double>>>{
           {},
           {{}},
           {{0}},
           {{5, 5}, {5, 5}},
           {{kNan, kNan}},
           {{-1e308, 1e308}},
           {{1e-310, 0}},
           {{1e-9, 3e-9}},
           std::vector<std::vector<double>>(64, std::vector<double>(128, 0.5))}) {
    require_all_formats(heatmap(values));
  }
}

TEST_CASE("heatmap: the darkest cell is the lowest, the brightest the highest") {
  // A cell's middle may carry text, so its corner is looked at.
  const Heatmap map = heatmap({{0, 1}});
  const espalier::plot::detail::Surface surface(
      cairo_image_surface_create(CAIRO_FORMAT_RGB24, 400, 300));
  {
    Canvas canvas(surface.get());
    map.draw(canvas);
  }
  cairo_surface_flush(surface.get());
  const unsigned char* data = cairo_image_surface_get_data(surface.get());
  const int stride = cairo_image_surface_get_stride(surface.get());
  std::vector<int> hits(2);
  const Color ends[] = {viridis(0), viridis(1)};
  for (int y = 0; y < 300; ++y) {
    for (int x = 0; x < 150; ++x) {
      const unsigned char* p = data + y * stride + 4 * x;
      for (std::size_t k = 0; k < 2; ++k) {
        hits[k] += std::abs(p[2] - 255 * ends[k].r) < 2 && std::abs(p[1] - 255 * ends[k].g) < 2 &&
                   std::abs(p[0] - 255 * ends[k].b) < 2;
      }
    }
  }
  CHECK(hits[0] > 300);
  CHECK(hits[1] > 300);
}

TEST_CASE("heatmap: rows of different length are refused by number") {
  CHECK(message_of<ShapeError>([] {
          (void)encode(heatmap({{1, 2}, {3}}), Format::svg);
        }) == "heatmap: row 1 has 1 columns, row 0 has 2");
  Heatmap map = heatmap({{1, 2}});
  map.dropped = {{true}};
  CHECK(message_of<ShapeError>([&] { (void)encode(map, Format::svg); }) ==
        "heatmap: dropped[0] has 1 columns, values has 2");
}

TEST_CASE("curves: gaps, logarithms, one point and a hundred thousand") {
  Curves curves;
  curves.labels = {"loss", "step", "loss"};
  require_all_formats(curves);
  curves.series = {{"a", {0, 1, 2, 3}, {1, kNan, 3, 2}}, {"b", {1}, {2}}, {"c", {}, {}}};
  require_all_formats(curves);
  curves.log_y = true;
  curves.series[0].y = {0, -1, 1e-8, 1e5};
  require_all_formats(curves);
  curves.series[0].y = {3, 3.001, 3.002, 3.0005};
  curves.series.resize(1);
  require_all_formats(curves);

  Series noisy{"loss", {}, {}, 20};
  for (int i = 0; i < 100000; ++i) {
    noisy.x.push_back(i);
    noisy.y.push_back(std::sin(i * 0.001) + ((i * 7919) % 101) / 101.0);
  }
  curves.log_y = false;
  curves.series = {noisy};
  require_all_formats(curves);
  CHECK(encode(curves, Format::svg).size() < 600000);  // thinned
  curves.series[0].y.pop_back();
  CHECK(message_of<ShapeError>([&] { (void)encode(curves, Format::svg); }) ==
        "curves: series 'loss' has 100000 x values and 99999 y values");
}

TEST_CASE("smoothed: keeps constants, keeps gaps, takes noise away") {
  const std::vector<double> constant(50, 3.0);
  for (const double v : smoothed(constant, 5)) CHECK(std::abs(v - 3) < 1e-12);
  const auto gap = smoothed({1, kNan, 1}, 1);
  CHECK(std::isnan(gap[1]));
  CHECK(gap[0] == 1);
  std::vector<double> saw;
  for (int i = 0; i < 100; ++i) saw.push_back(i % 2);
  CHECK(std::abs(smoothed(saw, 4)[50] - 0.5) < 0.003);  // three sigma are 99.7 % of the weight
  CHECK(smoothed(saw, 0) == saw);
}

TEST_CASE("smoothed: three boxes, as their definition gives it, and close to the Gaussian") {
  std::vector<double> y;
  for (int i = 0; i < 300; ++i) {
    y.push_back(i % 37 == 5 ? kNan : std::sin(i * 0.05) + ((i * 7919) % 101) / 101.0);
  }
  for (const double sigma : {0.3, 1.0, 2.5, 6.0, 40.0, 1e9}) {
    const double used = std::min(sigma, 300.0);
    const auto widths = espalier::plot::detail::box_widths(used);
    double variance = 0;
    std::vector<double> kernel = {1};  // the boxes' convolution
    for (const std::size_t w : widths) {
      REQUIRE(w % 2 == 1);
      variance += (static_cast<double>(w * w) - 1) / 12;
      std::vector<double> wider(kernel.size() + w - 1, 0.0);
      for (std::size_t i = 0; i < kernel.size(); ++i) {
        for (std::size_t k = 0; k < w; ++k) wider[i + k] += kernel[i] / static_cast<double>(w);
      }
      kernel = wider;
    }
    CHECK(std::abs(std::sqrt(variance) - used) < 0.35);
    const std::vector<double> found = smoothed(y, sigma);
    const auto reach = static_cast<std::ptrdiff_t>(kernel.size() / 2);
    for (std::ptrdiff_t i = 0; i < 300; ++i) {
      double sum = 0, weights = 0, gauss = 0, gauss_weights = 0;
      for (std::ptrdiff_t j = 0; j < 300; ++j) {
        const double v = y[static_cast<std::size_t>(j)], d = static_cast<double>(j - i) / used;
        if (std::isnan(v)) continue;
        const double g = std::exp(-0.5 * d * d);
        gauss += g * v;
        gauss_weights += g;
        if (std::abs(j - i) > reach) continue;
        const double k = kernel[static_cast<std::size_t>(j - i + reach)];
        sum += k * v;
        weights += k;
      }
      const double mean = found[static_cast<std::size_t>(i)];
      REQUIRE(std::isnan(mean) == std::isnan(y[static_cast<std::size_t>(i)]));
      if (std::isnan(mean)) continue;
      CHECK(std::abs(mean - sum / weights) < 1e-12);
      if (sigma >= 2) CHECK(std::abs(mean - gauss / gauss_weights) < 0.05);
    }
  }
}

TEST_CASE("smoothed: a large value leaves nothing behind where it is out of reach") {
  std::vector<double> y(200, 1.0);
  y[20] = 1e300;
  const std::vector<double> out = smoothed(y, 4);
  CHECK(out[20] > 1e298);
  for (std::size_t i = 60; i < y.size(); ++i) REQUIRE(std::abs(out[i] - 1) < 1e-12);
}

TEST_CASE("curves: the picture of a million steps is as large as one of fewer") {
  // Quadratic smoothing would take 10^11 operations here.
  const auto picture = [](int steps, int gap_every, bool markers) {
    Series s{"loss", {}, {}};
    for (int i = 0; i < steps; ++i) {
      s.x.push_back(i);
      const double noise = ((static_cast<long>(i) * 7919) % 1009) / 1009.0;
      s.y.push_back(gap_every > 0 && i % gap_every == 0 ? kNan : 3 + noise);
    }
    s.smoothing = markers ? 0 : steps / 50.0;
    s.markers = markers;
    Curves curves;
    curves.series = {s};
    return encode(curves, Format::svg).size();
  };
  CHECK(picture(1000000, 0, false) < picture(10000, 0, false) * 3 / 2);
  for (const bool markers : {false, true}) {  // every second value is a gap
    CHECK(picture(1000000, 2, markers) < picture(100000, 2, markers) * 11 / 10);
  }
}

TEST_CASE("thinned: keeps what shows, gaps too, and is bounded for any line") {
  std::vector<Point> points;
  for (int i = 0; i < 10000; ++i) points.push_back({i / 1000.0, 5});
  points[1234].y = -7;
  points[1240].y = 90;
  for (int i = 5000; i < 7000; ++i) points[static_cast<std::size_t>(i)] = {kNan, kNan};
  points[8100] = {kNan, kNan};  // narrower than half a point
  const std::vector<Point> few = thinned(points);
  CHECK(few.size() <= 5 * 21);
  const auto has = [&](double x, double y) {
    return std::any_of(few.begin(), few.end(),
                       [&](const Point& p) { return p.x == x && p.y == y; });
  };
  CHECK(has(0, 5));
  CHECK(has(1.234, -7));
  CHECK(has(1.240, 90));
  CHECK(has(4.999, 5));
  CHECK(has(7.0, 5));
  CHECK(has(9.999, 5));
  CHECK(std::count_if(few.begin(), few.end(), [](const Point& p) { return std::isnan(p.x); }) == 1);
  points.resize(3999);
  CHECK(thinned(points).size() == 3999);
  std::vector<Point> wild;  // to and fro across the page
  for (int i = 0; i < 300000; ++i) wild.push_back({i % 2 * 400.0, i % 7 * 1.0});
  CHECK(thinned(wild).size() <= 50001);
}

TEST_CASE("pages that are too large for a format are drawn smaller") {
  CHECK(scale_of({560, 340}, Format::png) == 2);
  CHECK(scale_of({560, 340}, Format::svg) == 1);
  Bars bars;
  bars.labels = {"5000 categories", "", "accuracy"};
  for (int i = 0; i < 5000; ++i) bars.categories.push_back("category " + std::to_string(i));
  bars.series = {{"a", std::vector<double>(5000, 0.5)}, {"b", std::vector<double>(5000, 0.25)}};
  bars.page.width = 140060;
  const std::string png = encode(bars, Format::png);
  CHECK(big_endian(png, 16) <= 16385);
  CHECK(big_endian(png, 20) >= 1);
  for (const Format format : {Format::svg, Format::pdf}) {
    const Size size = bars.size();
    CHECK(size.width * scale_of(size, format) <= 14400.001);
    CHECK(encode(bars, format).size() > 1000);
  }
  const Size square{20000, 20000};
  const double scale = scale_of(square, Format::png);
  CHECK(std::abs(scale * scale * 4e8 - 0x1p25) < 1);
  // A model with as many experts as a configuration may name.
  const Heatmap map = heatmap({std::vector<double>(65535, 0.5), std::vector<double>(65535, 1)});
  CHECK(big_endian(encode(map, Format::png), 16) <= 16385);
}

TEST_CASE("axes: a legend that does not fit says how many are left out") {
  Curves curves;
  for (int i = 0; i < 1000; ++i) {
    curves.series.push_back({"series number " + std::to_string(i), {0, 1}, {0, 1.0 * i}});
  }
  require_all_formats(curves);
  curves.series.resize(12);
  require_all_formats(curves);
}

TEST_CASE("bars: groups, errors, missing values, negative values") {
  Bars bars;
  bars.labels = {"accuracy", "task", "accuracy"};
  require_all_formats(bars);
  bars.categories = {"arc", "a very long name of a task", "gsm8k"};
  bars.series = {{"base", {0.5, 0.6, kNan}, {0.1, kNan, 0.1}}, {"pruned", {0.4, -0.2, 0.1}}};
  bars.reference = 0.25;
  bars.reference_label = "chance";
  bars.value_decimals = 2;
  require_all_formats(bars);
  bars.series[1].values.pop_back();
  CHECK(message_of<ShapeError>([&] { (void)encode(bars, Format::svg); }) ==
        "bars: series 'pruned' has 2 values for 3 categories");
}

TEST_CASE("ticks: nice numbers inside the range, one scale for all labels") {
  const auto labels = [](double low, double high, int count) {
    const Range range{low, high};
    const Scale scale(range);
    std::string text;
    for (const Tick& t : linear_ticks(range, count, scale)) {
      CHECK(t.value >= low - 1e-9 * (high - low));
      CHECK(t.value <= high + 1e-9 * (high - low));
      text += t.label + " ";
    }
    return text + scale.note;
  };
  CHECK(labels(0, 1, 5) == "0.0 0.2 0.4 0.6 0.8 1.0 ");
  CHECK(labels(-1, 1, 4) == "−1.0 −0.5 0.0 0.5 1.0 ");
  CHECK(labels(3, 97, 5) == "20 40 60 80 ");
  CHECK(labels(0, 1e-5, 4) == "0.00 0.25 0.50 0.75 1.00 ×10⁻⁵");
  CHECK(labels(0, 2e7, 4) == "0.0 0.5 1.0 1.5 2.0 ×10⁷");
  CHECK(labels(2, 2, 4).empty());
  CHECK(labels(-1.7e308, 1.7e308, 1) == "0 ×10³⁰⁸");
  std::string decades;
  for (const Tick& t : log_ticks({-5.2, 0.3})) decades += t.label + " ";
  CHECK(decades == "10⁻⁵ 10⁻⁴ 10⁻³ 10⁻² 10⁻¹ 10⁰ ");
  decades.clear();
  for (const Tick& t : log_ticks({-1, 1})) decades += t.label + " ";
  CHECK(decades == "0.1 0.2 0.5 1 2 5 10 ");
}

TEST_CASE("ranges: never empty, never a point") {
  Range r;
  CHECK(r.empty());
  r.add(kNan);
  r.add(HUGE_VAL);
  CHECK(r.empty());
  CHECK(r.usable().span() == 1);
  r.add(5);
  CHECK(r.usable().low == 4.5);
  CHECK(r.usable().high == 5.5);
  r.add(7);
  CHECK(r.usable().low == 5);
  Range zero{0, 0};
  CHECK(zero.usable().span() == 1);
}

TEST_CASE("colours: viridis grows lighter all the way, text on it stays readable") {
  const auto luminance = [](const Color& c) {
    const auto linear = [](double v) {
      return v <= 0.04045 ? v / 12.92 : std::pow((v + 0.055) / 1.055, 2.4);
    };
    return 0.2126 * linear(c.r) + 0.7152 * linear(c.g) + 0.0722 * linear(c.b);
  };
  double before = -1;
  for (int i = 0; i <= 100; ++i) {
    const Color c = viridis(i / 100.0);
    CHECK(luminance(c) > before);
    before = luminance(c);
    const double a = luminance(c) + 0.05, b = luminance(contrast(c)) + 0.05;
    CHECK(std::max(a, b) / std::min(a, b) > 3.5);
  }
  CHECK(viridis(-1).r == viridis(0).r);
  CHECK(viridis(2).r == viridis(1).r);
}

TEST_CASE("save: the extension chooses the format; failures leave nothing behind") {
  test::TemporaryFolder folder;
  for (const char* name : {"a.png", "a.svg", "a.pdf"}) save(heatmap({{1, 2}}), folder / name);
  CHECK(test::read_bytes(folder / "a.png") == encode(heatmap({{1, 2}}), Format::png));
  CHECK(message_of<UsageError>([&] { save(heatmap({{1}}), folder / "a.jpg"); }, folder.path()) ==
        "a.jpg: a plot is a .png, .svg or .pdf file");
  CHECK_THAT(message_of<IoError>([&] { save(heatmap({{1}}), folder / "no/a.png"); }, folder.path()),
             Catch::StartsWith("no/a.png: cannot create: No such file"));
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()),
                      std::filesystem::directory_iterator()) == 3);
  std::filesystem::create_directories(folder / "folder.png");
  CHECK(save_or_reason(heatmap({{1}}), folder / "b.png").empty());
  CHECK_THAT(save_or_reason(heatmap({{1}}), folder / "folder.png"),
             Catch::StartsWith((folder / "folder.png").string() + ": cannot create: "));
  CHECK(save_or_reason(heatmap({{1, 2}, {3}}), folder / "c.png") ==
        (folder / "c.png").string() + ": heatmap: row 1 has 1 columns, row 0 has 2");
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()),
                      std::filesystem::directory_iterator()) == 5);
}

TEST_CASE("save: what lies under a temporary name is neither followed nor overwritten") {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "victim", "mine");
  const std::string guess = "a.svg.tmp-" + std::to_string(::getpid());
  std::filesystem::create_symlink(folder / "victim", folder / guess);
  save(heatmap({{1, 2}}), folder / "a.svg");
  CHECK(test::read_bytes(folder / "victim") == "mine");
  CHECK_FALSE(std::filesystem::is_symlink(folder / "a.svg"));
}

TEST_CASE("texts that are not UTF-8 are drawn, with question marks") {
  CHECK(espalier::plot::detail::printable("a\xff\xc3(\xe2\x82z\xed\xa0\x80") ==
        "a?"
        "?("
        "?"
        "?z"
        "?"
        "?"
        "?");
  CHECK(espalier::plot::detail::printable("ä…🌳\n") == "ä…🌳 ");
  Heatmap map = heatmap({{1}});
  map.title = "\xff\xfe bad";
  require_all_formats(map);
}
