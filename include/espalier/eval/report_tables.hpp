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
#include <espalier/eval/compare.hpp>
#include <espalier/eval/result_table.hpp>

namespace espalier::eval {

using TableRows = std::vector<std::vector<std::string>>;  // the first one is the header

/// A row per result: label, model, experts, size, and the mean of the first share (accuracy) of
/// each task that all results have, with its standard error; the best first. No rows without such a
/// task.
[[nodiscard]] TableRows overview_table(const std::vector<Result>& results);

/// A row per result: label, model, experts, criterion, and "value ± standard error" per metric; an
/// interval of Wilson at 95 % in place of an error of 0.
[[nodiscard]] TableRows value_table(const std::vector<Result>& results);

/// The result that others are compared with: the first one that was not pruned and has most
/// experts; else the first.
[[nodiscard]] std::size_t reference_of(const std::vector<Result>& results);

/// A row per result except the reference: its metrics minus those of the reference. Where both
/// folders have journals the answers are paired by question: standard error of the paired
/// difference, p of McNemar's exact test, adjusted by Holm over the table; else the error is that
/// of independent samples, marked as unpaired.
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

#include <algorithm>
#include <cmath>
#include <optional>

#include <espalier/eval/file_name.hpp>

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

namespace detail {

/// True if the metric is a share of answers, so that it can share an axis with others.
inline bool is_share(const std::string& metric) {
  return metric.starts_with("acc") || metric == "macro" || metric == "strict_accuracy" ||
         metric == "mc2" || metric.starts_with("exact_match") || metric.ends_with("_acc");
}

/// The task without what tells its settings apart.
inline std::string plain_task(const ResultMetric& m) {
  return m.task.substr(0, m.task.size() - m.setting.size());
}

inline std::string value_text(const Result& r, const ResultMetric& m) {
  const auto setting = r.settings.find(plain_task(m));
  const std::int64_t n = setting == r.settings.end() ? 0 : setting->second.questions;
  const bool certain = !(m.estimate.standard_error > 0);  // 0 or unknown
  if (!is_share(m.name) || n == 0 || !certain) return with_error(m.estimate);
  const Interval i = wilson_interval(std::llround(m.estimate.value * static_cast<double>(n)), n);
  return number_text(m.estimate.value) + " [" + number_text(i.low) + ", " + number_text(i.high) +
         "]";
}

/// Journals of a result's task, or an empty path.
inline std::filesystem::path journal_of(const Result& r, const std::string& task) {
  std::string name = task;
  std::replace(name.begin(), name.end(), ':', '_');
  const std::filesystem::path path = r.folder / (file_name_of(name) + ".jsonl");
  std::error_code ignored;
  return !r.folder.empty() && std::filesystem::exists(path, ignored) ? path
                                                                     : std::filesystem::path();
}

struct Difference {
  std::string text;                // where there is nothing to compute, or an unpaired difference
  std::optional<Comparison> pair;  // with p to adjust
};

inline Difference difference_of(const Result& before, const ResultMetric& a, const Result& after,
                                const ResultMetric& b) {
  const auto first = journal_of(before, plain_task(a)), other = journal_of(after, plain_task(b));
  if (!first.empty() && !other.empty()) {
    const JournalScores x = read_journal_scores(first), y = read_journal_scores(other);
    const auto has = [&](const JournalScores& s) {
      return std::count(s.metrics.begin(), s.metrics.end(), a.name) > 0;
    };
    if (has(x) && has(y)) {
      try {
        require_same_questions(x, y, first, other);
      } catch (const UsageError&) {
        return {"other questions", std::nullopt};
      }
      return {"", compare_metric(x, y, a.name)};
    }
  }
  const Estimate d{b.estimate.value - a.estimate.value,
                   std::hypot(a.estimate.standard_error, b.estimate.standard_error)};
  return {(d.value >= 0 ? "+" : "") + with_error(d) + " (unpaired)", std::nullopt};
}

inline std::string difference_text(const Comparison& c) {
  std::string text = (c.difference.value >= 0 ? "+" : "") + with_error(c.difference);
  if (c.is_share()) text += fmt::format(", p {:.3g}", c.p_holm);
  return text;
}

inline const ResultMetric* metric_of(const Result& r, const std::string& task,
                                     const std::string& name) {
  for (const ResultMetric& m : r.metrics) {
    if (m.task == task && m.name == name) return &m;
  }
  return nullptr;
}

}  // namespace detail

ESP_INLINE std::size_t reference_of(const std::vector<Result>& results) {
  std::size_t best = 0;
  for (std::size_t i = 1; i < results.size(); ++i) {
    const auto rank = [&](std::size_t k) {
      return std::pair(results[k].criterion.empty(), results[k].experts);
    };
    if (rank(i) > rank(best)) best = i;
  }
  return best;
}

ESP_INLINE TableRows overview_table(const std::vector<Result>& results) {
  MetricColumns shared;
  for (const auto& [task, name] : metric_columns(results)) {
    const bool everywhere =
        std::all_of(results.begin(), results.end(),
                    [&, t = task, n = name](const Result& r) { return r.find(t, n) != nullptr; });
    const bool first = shared.empty() || shared.back().first != task;
    if (everywhere && first && detail::is_share(name)) shared.emplace_back(task, name);
  }
  if (shared.empty()) return {};
  struct Row {
    double mean;
    std::vector<std::string> cells;
  };
  std::vector<Row> ranked;
  for (const Result& r : results) {
    double sum = 0, squares = 0;
    for (const auto& [task, name] : shared) {
      const Estimate& e = *r.find(task, name);
      sum += e.value;
      squares += e.standard_error * e.standard_error;
    }
    const auto n = static_cast<double>(shared.size());
    const Estimate mean{sum / n, std::sqrt(squares) / n};
    ranked.push_back(
        {mean.value,
         {r.label, r.model, r.experts > 0 ? std::to_string(r.experts) : "-",
          r.bytes > 0 ? fmt::format("{:.2f} GB", static_cast<double>(r.bytes) / 1e9) : "-",
          detail::with_error(mean)}});
  }
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const Row& a, const Row& b) { return a.mean > b.mean; });
  TableRows rows = {{"result", "model", "experts", "size",
                     "mean of " + std::to_string(shared.size()) + " tasks"}};
  for (Row& row : ranked) rows.push_back(std::move(row.cells));
  return rows;
}

ESP_INLINE TableRows value_table(const std::vector<Result>& results) {
  const MetricColumns columns = metric_columns(results);
  TableRows rows = {{"result", "model", "experts", "criterion"}};
  detail::add_metric_columns(rows[0], columns);
  for (const Result& r : results) {
    rows.push_back({r.label, r.model, r.experts > 0 ? std::to_string(r.experts) : "-",
                    r.criterion.empty() ? "-" : r.criterion});
    for (const auto& [task, name] : columns) {
      const ResultMetric* m = detail::metric_of(r, task, name);
      rows.back().push_back(m != nullptr ? detail::value_text(r, *m) : "-");
    }
  }
  return rows;
}

ESP_INLINE TableRows difference_table(const std::vector<Result>& results) {
  const MetricColumns columns = metric_columns(results);
  const std::size_t reference = results.empty() ? 0 : reference_of(results);
  TableRows rows = {{"result"}};
  detail::add_metric_columns(rows[0], columns);
  std::vector<Comparison> pairs;
  std::vector<std::pair<std::size_t, std::size_t>> cells;  // of the pairs
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (i == reference) continue;
    rows.push_back({results[i].label});
    for (const auto& [task, name] : columns) {
      const ResultMetric* a = detail::metric_of(results[reference], task, name);
      const ResultMetric* b = detail::metric_of(results[i], task, name);
      detail::Difference d{"-", std::nullopt};
      if (a != nullptr && b != nullptr) {
        d = detail::difference_of(results[reference], *a, results[i], *b);
      }
      if (d.pair) {
        pairs.push_back(*d.pair);
        cells.emplace_back(rows.size() - 1, rows.back().size());
      }
      rows.back().push_back(d.text);
    }
  }
  adjust_for_number(pairs);
  for (std::size_t k = 0; k < pairs.size(); ++k) {
    rows[cells[k].first][cells[k].second] = detail::difference_text(pairs[k]);
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
