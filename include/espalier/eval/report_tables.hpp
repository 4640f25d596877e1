// SPDX-License-Identifier: Apache-2.0
// Tables over several evaluations: values with standard errors, differences from the first result,
// and how answers of MMLU-Pro were found. A table is rows of text; the first row is the header.
// Tables are written as Markdown or HTML, the results themselves as CSV or JSON with all digits.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/report_tables.hpp is host-only; include it from a .cpp"
#endif

#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/control_characters.hpp>
#include <espalier/eval/result_table.hpp>

namespace espalier::eval {

using TableRows = std::vector<std::vector<std::string>>;  // the first one is the header

/// A row per result: label, model, experts, criterion, and "value ± standard error" per metric.
[[nodiscard]] TableRows value_table(const std::vector<Result>& results);

/// A row per result except the first: its metrics minus those of the first result, with the
/// standard error of a difference of independent samples.
[[nodiscard]] TableRows difference_table(const std::vector<Result>& results);

/// Counts how the answers of MMLU-Pro were found, a row per result with that task.
[[nodiscard]] TableRows answer_table(const std::vector<Result>& results);

/// Columns result,model,experts,criterion,task,metric,value,stderr; a line per metric. Unknown
/// values are empty.
[[nodiscard]] std::string results_csv(const std::vector<Result>& results);

/// [{"result", "model", "experts", "criterion", "metrics": [{"task", "metric", "value",
/// "stderr"}]}]
[[nodiscard]] io::Json results_json(const std::vector<Result>& results);

[[nodiscard]] std::string markdown_table(const TableRows& rows);
[[nodiscard]] std::string html_table(const TableRows& rows);
/// `text` as a text of HTML: what HTML reserves is escaped; control characters, and bytes that are
/// not UTF-8, are shown as \x1b.
[[nodiscard]] std::string escape_html(std::string_view text);
/// `text` as a text of Markdown, in a line of its own or in a table: no HTML, no links, no columns.
[[nodiscard]] std::string markdown_text(std::string_view text);

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <fmt/format.h>

#include <cmath>

namespace espalier::eval {

namespace detail {

inline std::string number_text(double v) {
  if (!std::isfinite(v)) return "-";
  return std::abs(v) >= 1000 ? fmt::format("{:.1f}", v) : fmt::format("{:.4f}", v);
}

inline std::string with_error(const Estimate& e) {
  return number_text(e.value) +
         (std::isfinite(e.standard_error) ? " ± " + number_text(e.standard_error) : "");
}

/// `text` with `by` in front of each of `special`.
inline std::string escaped(std::string_view text, std::string_view special, char by) {
  std::string out;
  for (const char c : text) {
    if (special.find(c) != special.npos) out += by;
    out += c;
  }
  return out;
}

/// Spreadsheets take a text that begins so for a formula; with an apostrophe in front it is a text.
inline std::string csv_cell(std::string text) {
  if (text.find_first_of("=+-@\t\r") == 0) text.insert(0, 1, '\'');
  if (text.find_first_of(",\"\n\r") == text.npos) return text;
  return "\"" + escaped(text, "\"", '"') + "\"";
}

inline void add_metric_columns(std::vector<std::string>& header, const MetricColumns& columns) {
  for (const auto& [task, name] : columns) header.push_back(task + " " + name);
}

}  // namespace detail

ESP_INLINE TableRows value_table(const std::vector<Result>& results) {
  const MetricColumns columns = metric_columns(results);
  TableRows rows = {{"result", "model", "experts", "criterion"}};
  detail::add_metric_columns(rows[0], columns);
  for (const Result& r : results) {
    rows.push_back({r.label, r.model, r.experts > 0 ? std::to_string(r.experts) : "-",
                    r.criterion.empty() ? "-" : r.criterion});
    for (const auto& [task, name] : columns) {
      const Estimate* e = r.find(task, name);
      rows.back().push_back(e ? detail::with_error(*e) : "-");
    }
  }
  return rows;
}

ESP_INLINE TableRows difference_table(const std::vector<Result>& results) {
  const MetricColumns columns = metric_columns(results);
  TableRows rows = {{"result"}};
  detail::add_metric_columns(rows[0], columns);
  for (std::size_t i = 1; i < results.size(); ++i) {
    rows.push_back({results[i].label});
    for (const auto& [task, name] : columns) {
      const Estimate* a = results[0].find(task, name);
      const Estimate* b = results[i].find(task, name);
      if (a == nullptr || b == nullptr) {
        rows.back().push_back("-");
        continue;
      }
      const Estimate d{b->value - a->value, std::hypot(a->standard_error, b->standard_error)};
      rows.back().push_back((d.value >= 0 ? "+" : "") + detail::with_error(d));
    }
  }
  return rows;
}

ESP_INLINE TableRows answer_table(const std::vector<Result>& results) {
  TableRows rows = {{"result", "rule", "level 1", "level 2", "level 3", "guessed", "lucky",
                     "cut off by the limit"}};
  const auto count = [](const io::Json* j) {
    return j != nullptr && j->is_integer() ? std::to_string(j->as_int()) : std::string("-");
  };
  for (const Result& r : results) {
    if (r.mmlu_pro.is_null()) continue;
    const io::Json& s = r.mmlu_pro;
    const io::Json& levels = s.at("levels");
    rows.push_back({r.label, s.at("rule").as_string(), count(levels.find("1")),
                    count(levels.find("2")), count(levels.find("3")), count(s.find("unanswered")),
                    count(s.find("lucky")), count(s.find("hit_limit"))});
  }
  return rows;
}

ESP_INLINE std::string results_csv(const std::vector<Result>& results) {
  const auto value = [](double v) { return std::isfinite(v) ? io::dump(v) : std::string(); };
  std::string out = "result,model,experts,criterion,task,metric,value,stderr\n";
  for (const Result& r : results) {
    const std::string begin = detail::csv_cell(r.label) + "," + detail::csv_cell(r.model) + "," +
                              (r.experts > 0 ? std::to_string(r.experts) : "") + "," +
                              detail::csv_cell(r.criterion);
    for (const ResultMetric& m : r.metrics) {
      out += begin + "," + detail::csv_cell(m.task) + "," + detail::csv_cell(m.name) + "," +
             value(m.estimate.value) + "," + value(m.estimate.standard_error) + "\n";
    }
  }
  return out;
}

ESP_INLINE io::Json results_json(const std::vector<Result>& results) {
  io::Json all = io::Json::array();
  for (const Result& r : results) {
    io::Json one = io::Json::object();
    one["result"] = r.label;
    one["model"] = r.model;
    one["experts"] = r.experts;
    one["criterion"] = r.criterion;
    one["metrics"] = io::Json::array();
    for (const ResultMetric& m : r.metrics) {
      io::Json metric = io::Json::object();
      metric["task"] = m.task;
      metric["metric"] = m.name;
      metric["value"] = m.estimate.value;
      metric["stderr"] = m.estimate.standard_error;
      one["metrics"].push_back(std::move(metric));
    }
    all.push_back(std::move(one));
  }
  return all;
}

ESP_INLINE std::string markdown_table(const TableRows& rows) {
  std::string out;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::string rule = "|";
    out += "|";
    for (const std::string& cell : rows[r]) {
      out += " " + markdown_text(cell) + " |";
      rule += "---|";
    }
    out += "\n";
    if (r == 0) out += rule + "\n";
  }
  return out;
}

ESP_INLINE std::string escape_html(std::string_view text) {
  std::string out;
  for (const char c : escape_controls(text)) {
    if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else {
      out += c;
    }
  }
  return out;
}

ESP_INLINE std::string markdown_text(std::string_view text) {
  return detail::escaped(escape_html(text), "\\|[]`", '\\');
}

ESP_INLINE std::string html_table(const TableRows& rows) {
  std::string out = "<table>\n";
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const std::string tag = r == 0 ? "th" : "td";
    out += "<tr>";
    for (const std::string& cell : rows[r]) {
      out += "<" + tag + ">" + escape_html(cell) + "</" + tag + ">";
    }
    out += "</tr>\n";
  }
  return out + "</table>\n";
}

}  // namespace espalier::eval
#endif
