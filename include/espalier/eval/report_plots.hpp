// SPDX-License-Identifier: Apache-2.0
// Plots evaluation results and training logs: metrics over kept experts, accuracy by task and by
// category of MMLU-Pro, training loss.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/report_plots.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include <espalier/eval/report_tables.hpp>
#include <espalier/plot/bars.hpp>
#include <espalier/plot/curves.hpp>

namespace espalier::eval {

struct ReportPlot {
  std::string file;  // its name without extension
  std::variant<plot::Curves, plot::Bars> drawing;
  std::string note = {};  // what it leaves out; empty: nothing

  const std::string& title() const;
  /// @returns why there is no picture; empty if there is one
  std::string save_or_reason(const std::filesystem::path& path) const;
  std::string encode(plot::Format format) const;
};

/// Draws each metric over the number of kept experts, a line per criterion. If there is exactly one
/// unpruned model, it is a point of every line; several are points of their own. Values that spread
/// over more than a factor of 100 are drawn as log10. Draws at most 64 metrics; none without pruned
/// models.
[[nodiscard]] std::vector<ReportPlot> kept_experts_plots(const std::vector<Result>& results);

/// Draws the accuracies of each task with one standard error each way; no plot without accuracies.
/// Bars that do not fit on a page go on the next one, accuracy_2, up to 16 pages.
[[nodiscard]] std::vector<ReportPlot> accuracy_plots(const std::vector<Result>& results);

/// Draws MMLU-Pro by category with one standard error each way, on up to 16 pages; no plot without
/// that task.
[[nodiscard]] std::vector<ReportPlot> category_plots(const std::vector<Result>& results);

/// Draws the losses of train_log.jsonl, a line per folder; no plot without folders.
/// @throws IoError, FormatError
[[nodiscard]] std::vector<ReportPlot> training_plots(
    const std::vector<std::filesystem::path>& folders);

/// All plots above.
[[nodiscard]] std::vector<ReportPlot> report_plots(
    const std::vector<Result>& results, const std::vector<std::filesystem::path>& folders);

/// An SVG file as a part of a page: without prolog and namespaces, and with ids of its own, since
/// every plot counts its glyphs from 0.
[[nodiscard]] std::string inline_svg(std::string svg, std::size_t number);

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <espalier/eval/file_name.hpp>
#include <espalier/io/jsonl.hpp>

namespace espalier::eval {

namespace detail {

/// Replaces all but letters, digits, dots and dashes, so that a page can name the file unescaped.
inline std::string plain_file_name(std::string text) {
  for (char& c : text) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.';
    c = plain ? c : '_';
  }
  return file_name_of(std::move(text));
}

/// Cuts a label under a bar to 40 characters.
inline std::string short_label(const std::string& text) {
  constexpr std::size_t kLongest = 40;
  std::size_t end = 0, characters = 0;
  while (end < text.size() && characters < kLongest) {
    end += std::max<std::size_t>(utf8_length(text, end), 1);
    ++characters;
  }
  return end < text.size() ? text.substr(0, end) + "…" : text;
}

/// Splits a plot into pages of at most 1600 points, with the groups of bars spread evenly.
inline std::vector<ReportPlot> pages_of(const std::string& file, const plot::Bars& all,
                                        double bar_width, double least_width) {
  constexpr double kMargin = 60, kWidest = 1600;
  constexpr std::size_t kMostPages = 16;
  const double group = bar_width * static_cast<double>(all.series.size());
  const auto room = static_cast<std::size_t>(std::max((kWidest - kMargin) / group, 1.0));
  const std::size_t count = all.categories.size(), needed = (count + room - 1) / room;
  const std::size_t pages = std::min(needed, kMostPages);
  const std::size_t drawn = needed > kMostPages ? room * kMostPages : count;
  std::vector<ReportPlot> plots;
  for (std::size_t p = 0; p < pages; ++p) {
    const auto begin = static_cast<std::ptrdiff_t>(drawn * p / pages),
               end = static_cast<std::ptrdiff_t>(drawn * (p + 1) / pages);
    const auto part = [&](const auto& list) {
      return std::remove_cvref_t<decltype(list)>(list.begin() + begin, list.begin() + end);
    };
    plot::Bars page = all;
    page.categories = part(all.categories);
    for (std::string& label : page.categories) label = short_label(label);
    for (plot::BarSeries& s : page.series) {
      s.values = part(s.values);
      s.errors = part(s.errors);
    }
    page.page.width =
        std::clamp(kMargin + group * static_cast<double>(end - begin), least_width, kWidest);
    std::string name = file;
    if (pages > 1) {
      page.labels.title += " (" + std::to_string(p + 1) + " of " + std::to_string(pages) + ")";
      if (p > 0) name += "_" + std::to_string(p + 1);
    }
    plots.push_back({name, std::move(page)});
  }
  if (drawn < count) {
    plots.back().note = "the plots show the first " + std::to_string(drawn) + " of " +
                        std::to_string(count) + " groups of bars";
  }
  return plots;
}

inline void replace_all(std::string& text, std::string_view what, const std::string& by) {
  for (std::size_t at = text.find(what); at != text.npos; at = text.find(what, at + by.size())) {
    text.replace(at, what.size(), by);
  }
}

inline void erase_attribute(std::string& svg, const std::string& name) {
  const std::size_t at = svg.find(" " + name + "=\"");
  if (at == svg.npos) return;
  const std::size_t end = svg.find('"', at + name.size() + 3);
  if (end != svg.npos) svg.erase(at, end + 1 - at);
}

using Points = std::map<double, double>;

inline void add_point(Points& points, const Result& r, const std::string& task,
                      const std::string& name) {
  if (const Estimate* e = r.find(task, name)) points[static_cast<double>(r.experts)] = e->value;
}

inline plot::Series series_of(const std::string& label, const Points& points) {
  plot::Series series;
  series.label = label;
  series.markers = true;
  for (const auto& [x, y] : points) {
    series.x.push_back(x);
    series.y.push_back(y);
  }
  return series;
}

/// Perplexities of damaged models explode: on a linear axis all others would lie at the bottom.
inline void use_logarithm_if_wide(plot::Curves& curves) {
  double least = HUGE_VAL, most = 0;
  for (const plot::Series& s : curves.series) {
    for (const double y : s.y) {
      if (!std::isfinite(y)) continue;
      least = std::min(least, y);
      most = std::max(most, y);
    }
  }
  if (!(least > 0) || most < 100 * least) return;
  for (plot::Series& s : curves.series) {
    for (double& y : s.y) y = std::log10(y);
  }
  curves.labels.y = "log10 of " + curves.labels.y;
}

}  // namespace detail

ESP_INLINE const std::string& ReportPlot::title() const {
  return std::visit([](const auto& p) -> const std::string& { return p.labels.title; }, drawing);
}
ESP_INLINE std::string ReportPlot::save_or_reason(const std::filesystem::path& path) const {
  return std::visit([&](const auto& p) { return plot::save_or_reason(p, path); }, drawing);
}
ESP_INLINE std::string ReportPlot::encode(plot::Format format) const {
  return std::visit([&](const auto& p) { return plot::encode(p, format); }, drawing);
}

ESP_INLINE std::vector<ReportPlot> kept_experts_plots(const std::vector<Result>& results) {
  std::map<std::string, std::vector<const Result*>> by_criterion;
  std::vector<const Result*> whole;
  for (const Result& r : results) {
    if (r.experts == 0) continue;
    (r.criterion.empty() ? whole : by_criterion[r.criterion]).push_back(&r);
  }
  constexpr std::size_t kMost = 64;
  std::vector<ReportPlot> plots;
  if (by_criterion.empty()) return plots;
  const MetricColumns columns = metric_columns(results);
  for (const auto& [task, name] : columns) {
    if (plots.size() == kMost) {
      plots.back().note = "of " + std::to_string(columns.size()) + " metrics the first " +
                          std::to_string(kMost) + " are drawn over kept experts";
      break;
    }
    plot::Curves curves;
    curves.labels = {task + " over kept experts", "experts per layer", name};
    for (const auto& [criterion, list] : by_criterion) {
      detail::Points points;
      for (const Result* r : list) detail::add_point(points, *r, task, name);
      if (points.empty()) continue;
      if (whole.size() == 1) detail::add_point(points, *whole[0], task, name);
      curves.series.push_back(detail::series_of(criterion, points));
    }
    if (curves.series.empty()) continue;
    for (const Result* r : whole) {
      detail::Points point;
      detail::add_point(point, *r, task, name);
      if (whole.size() > 1 && !point.empty()) {
        curves.series.push_back(detail::series_of(r->label + ", not pruned", point));
      }
    }
    detail::use_logarithm_if_wide(curves);
    plots.push_back({detail::plain_file_name("kept_" + task + "_" + name), std::move(curves)});
  }
  return plots;
}

ESP_INLINE std::vector<ReportPlot> accuracy_plots(const std::vector<Result>& results) {
  plot::Bars bars;
  bars.labels = {"Accuracy by task", "", "accuracy"};
  MetricColumns drawn;
  for (const auto& column : metric_columns(results)) {
    if (detail::is_share(column.second)) drawn.push_back(column);
  }
  if (drawn.empty()) return {};
  for (const auto& [task, name] : drawn) bars.categories.push_back(task + " " + name);
  for (const Result& r : results) {
    plot::BarSeries series{r.label, {}, {}};
    for (const auto& [task, name] : drawn) {
      const Estimate* e = r.find(task, name);
      series.values.push_back(e ? e->value : std::nan(""));
      const bool known = e != nullptr && std::isfinite(e->standard_error);
      series.errors.push_back(known ? e->standard_error : 0.0);
    }
    bars.series.push_back(std::move(series));
  }
  return detail::pages_of("accuracy", bars, 26, 560);
}

ESP_INLINE std::vector<ReportPlot> category_plots(const std::vector<Result>& results) {
  std::set<std::string> names;
  for (const Result& r : results) {
    if (r.mmlu_pro.is_null()) continue;
    for (const io::Json::Member& c : r.mmlu_pro.at("categories").members()) names.insert(c.key);
  }
  if (names.empty()) return {};
  plot::Bars bars;
  bars.labels = {"MMLU-Pro by category", "", "accuracy"};
  bars.categories.assign(names.begin(), names.end());
  for (const Result& r : results) {
    if (r.mmlu_pro.is_null()) continue;
    plot::BarSeries series{r.label, {}, {}};
    for (const std::string& name : bars.categories) {
      const io::Json* c = r.mmlu_pro.at("categories").find(name);
      const double n = c ? c->at("records").as_double() : 0,
                   k = c ? c->at("correct").as_double() : 0;
      series.values.push_back(n > 0 ? k / n : std::nan(""));
      series.errors.push_back(n > 1 ? std::sqrt(k / n * (1 - k / n) / (n - 1)) : 0.0);
    }
    bars.series.push_back(std::move(series));
  }
  return detail::pages_of("mmlu_pro_categories", bars, 14, 720);
}

ESP_INLINE std::vector<ReportPlot> training_plots(
    const std::vector<std::filesystem::path>& folders) {
  if (folders.empty()) return {};
  plot::Curves curves;
  curves.labels = {"Training loss", "step", "loss"};
  for (const std::filesystem::path& folder : folders) {
    plot::Series series;
    series.label = name_of_path(folder).string();
    for (const io::Json& line : io::read_jsonl(folder / "train_log.jsonl")) {
      series.x.push_back(line.at("step").as_double());
      series.y.push_back(detail::number_or_nan(line.find("loss")));
    }
    if (series.x.size() > 50) series.smoothing = static_cast<double>(series.x.size()) / 50;
    curves.series.push_back(std::move(series));
  }
  return {{"training_loss", std::move(curves)}};
}

ESP_INLINE std::vector<ReportPlot> report_plots(const std::vector<Result>& results,
                                                const std::vector<std::filesystem::path>& folders) {
  std::vector<ReportPlot> all = kept_experts_plots(results);
  for (auto&& some : {accuracy_plots(results), category_plots(results), training_plots(folders)}) {
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

ESP_INLINE std::string inline_svg(std::string svg, std::size_t number) {
  svg.erase(0, svg.find("<svg"));
  detail::erase_attribute(svg, "xmlns");
  detail::erase_attribute(svg, "xmlns:xlink");
  const std::string prefix = "p" + std::to_string(number) + "-";
  detail::replace_all(svg, " id=\"", " id=\"" + prefix);
  detail::replace_all(svg, "href=\"#", "href=\"#" + prefix);
  detail::replace_all(svg, "url(#", "url(#" + prefix);
  return svg;
}

}  // namespace espalier::eval
#endif
