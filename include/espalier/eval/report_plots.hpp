// SPDX-License-Identifier: Apache-2.0
// Plots of evaluation results and training logs: metrics over kept experts, accuracy by task and by
// category of MMLU-Pro, training loss.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/report_plots.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <string>
#include <variant>
#include <vector>

#include <espalier/eval/result_table.hpp>
#include <espalier/plot/bars.hpp>
#include <espalier/plot/curves.hpp>

namespace espalier::eval {

struct ReportPlot {
  std::string file;  // its name without extension
  std::variant<plot::Curves, plot::Bars> drawing;

  const std::string& title() const;
  void save(const std::filesystem::path& path) const;
  std::string encode(plot::Format format) const;
};

/// A plot per metric, in it a line per criterion over the number of experts. The unpruned model,
/// where there is exactly one, is a point of every line. Empty without pruned models.
[[nodiscard]] std::vector<ReportPlot> kept_experts_plots(const std::vector<Result>& results);

/// A plot of the accuracies of each task, with one standard error each way. Empty without any.
[[nodiscard]] std::vector<ReportPlot> accuracy_plots(const std::vector<Result>& results);

/// A plot of MMLU-Pro by category, with one standard error each way. Empty without that task.
[[nodiscard]] std::vector<ReportPlot> category_plots(const std::vector<Result>& results);

/// A plot with a line per folder that holds a train_log.jsonl. Empty without folders.
/// @throws IoError, FormatError
[[nodiscard]] std::vector<ReportPlot> training_plots(
    const std::vector<std::filesystem::path>& folders);

/// All of them.
[[nodiscard]] std::vector<ReportPlot> report_plots(
    const std::vector<Result>& results, const std::vector<std::filesystem::path>& folders);

/// An SVG file as a part of a page: without prolog and namespaces, and with ids of its own, since
/// every plot counts its glyphs from 0.
[[nodiscard]] std::string inline_svg(std::string svg, std::size_t number);

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <cmath>
#include <map>
#include <set>

#include <espalier/io/jsonl.hpp>

namespace espalier::eval {

namespace detail {

inline std::string plain_file_name(std::string text) {
  for (char& c : text) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.';
    c = plain ? c : '_';
  }
  return text;
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

/// Is the metric a share of answers, so that one axis can hold it beside others?
inline bool is_share(const std::string& metric) {
  return metric.starts_with("acc") || metric == "macro" || metric == "strict_accuracy";
}

}  // namespace detail

ESP_INLINE const std::string& ReportPlot::title() const {
  return std::visit([](const auto& p) -> const std::string& { return p.labels.title; }, drawing);
}
ESP_INLINE void ReportPlot::save(const std::filesystem::path& path) const {
  std::visit([&](const auto& p) { plot::save(p, path); }, drawing);
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
  std::vector<ReportPlot> plots;
  if (by_criterion.empty()) return plots;
  for (const auto& [task, name] : metric_columns(results)) {
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
  bars.page.width =
      std::max(560.0, 60.0 + 26.0 * static_cast<double>(drawn.size() * results.size()));
  return {{"accuracy", std::move(bars)}};
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
  bars.page.width =
      std::max(720.0, 60.0 + 14.0 * static_cast<double>(names.size() * bars.series.size()));
  return {{"mmlu_pro_categories", std::move(bars)}};
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
