// SPDX-License-Identifier: Apache-2.0
// report: tables, plots and one HTML page over several evaluation results.
//   report results/base results/keep6 results/keep4 --output report
// RESULTS are folders that evaluate wrote (or LightEval's results files); folders that fine_tune
// wrote add their loss curves. Written: results.csv, results.md, index.html, and the plots as PNG
// and SVG. The page holds its plots itself and loads nothing.
#include <filesystem>
#include <map>
#include <set>

#include <espalier/eval/result_table.hpp>
#include <espalier/io/jsonl.hpp>
#include <espalier/plot/bars.hpp>
#include <espalier/plot/curves.hpp>

#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;
namespace fs = std::filesystem;
using Columns = std::vector<std::pair<std::string, std::string>>;

struct Options {
  std::vector<std::string> results;
  std::string output, title = "Evaluation";
};

std::string html(std::string_view text) {
  std::string out;
  for (const char c : text) {
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

void replace_all(std::string& text, std::string_view what, const std::string& by) {
  for (std::size_t at = text.find(what); at != text.npos; at = text.find(what, at + by.size())) {
    text.replace(at, what.size(), by);
  }
}

void erase_attribute(std::string& svg, const std::string& name) {
  const std::size_t at = svg.find(" " + name + "=\"");
  if (at == svg.npos) return;
  const std::size_t end = svg.find('"', at + name.size() + 3);
  if (end != svg.npos) svg.erase(at, end + 1 - at);
}

/// An SVG file as a part of a page: without prolog and namespaces, and with ids of its own, since
/// every plot counts its glyphs from 0.
std::string inline_svg(std::string svg, std::size_t number) {
  svg.erase(0, svg.find("<svg"));
  erase_attribute(svg, "xmlns");
  erase_attribute(svg, "xmlns:xlink");
  const std::string prefix = "p" + std::to_string(number) + "-";
  replace_all(svg, " id=\"", " id=\"" + prefix);
  replace_all(svg, "href=\"#", "href=\"#" + prefix);
  replace_all(svg, "url(#", "url(#" + prefix);
  return svg;
}

std::string number(double v) {
  if (!std::isfinite(v)) return "-";
  return std::abs(v) >= 1000 ? fmt::format("{:.1f}", v) : fmt::format("{:.4f}", v);
}

std::string with_error(const eval::Estimate& e) {
  return number(e.value) +
         (std::isfinite(e.standard_error) ? " ± " + number(e.standard_error) : "");
}

std::string csv_cell(const std::string& text) {
  if (text.find_first_of(",\"\n") == text.npos) return text;
  std::string quoted = text;
  replace_all(quoted, "\"", "\"\"");
  return "\"" + quoted + "\"";
}

using Rows = std::vector<std::vector<std::string>>;  // the first one is the header

std::string markdown(const Rows& rows) {
  std::string out;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    std::string rule = "|";
    out += "|";
    for (std::string cell : rows[r]) {
      replace_all(cell, "|", "\\|");
      out += " " + cell + " |";
      rule += "---|";
    }
    out += "\n";
    if (r == 0) out += rule + "\n";
  }
  return out;
}

std::string html_table(const Rows& rows) {
  std::string out = "<table>\n";
  for (std::size_t r = 0; r < rows.size(); ++r) {
    out += "<tr>";
    const char* tag = r == 0 ? "th" : "td";
    for (const std::string& cell : rows[r]) out += fmt::format("<{0}>{1}</{0}>", tag, html(cell));
    out += "</tr>\n";
  }
  return out + "</table>\n";
}

void print(const Rows& rows) {
  Table table(rows[0]);
  for (std::size_t r = 1; r < rows.size(); ++r) table.add_row(rows[r]);
  table.print();
}

class Report {
 public:
  explicit Report(const Options& o) : o_(o), output_(o.output) {
    for (const std::string& path : o.results) {
      const bool training = fs::exists(fs::path(path) / "train_log.jsonl");
      const bool evaluated = !training || fs::exists(fs::path(path) / "summary.json");
      if (training) runs_.push_back(path);
      if (evaluated) results_.push_back(eval::read_result(path));
    }
    name_apart();
    columns_ = eval::metric_columns(results_);
  }

  void write() {
    std::error_code error;
    fs::create_directories(output_, error);
    if (error) io::detail::throw_errno(output_, "create", error.value());
    plot_kept_experts();
    plot_bars();
    plot_categories();
    plot_training();
    io::write_text(output_ / "results.csv", csv());
    io::write_text(output_ / "results.md", markdown_page());
    io::write_text(output_ / "index.html", page());
  }

  void show(bool json) const {
    if (json) {
      fmt::print("{}\n", io::dump(as_json()));
      return;
    }
    if (!results_.empty()) print(main_table());
    if (results_.size() > 1 && !columns_.empty()) {
      fmt::print("\nagainst {}:\n", results_[0].label);
      print(difference_table());
    }
    fmt::print("\n{}\n", (output_ / "index.html").string());
  }

 private:
  /// Two results of one name could not be told apart.
  void name_apart() {
    std::set<std::string> names;
    for (eval::Result& r : results_) {
      const std::string plain = r.label;
      for (int n = 2; !names.insert(r.label).second; ++n) {
        r.label = plain + " (" + std::to_string(n) + ")";
      }
    }
  }

  // --- tables ---
  Rows main_table() const {
    Rows rows = {{"result", "model", "experts", "criterion"}};
    for (const auto& [task, name] : columns_) rows[0].push_back(task + " " + name);
    for (const eval::Result& r : results_) {
      rows.push_back({r.label, r.model, r.experts > 0 ? std::to_string(r.experts) : "-",
                      r.criterion.empty() ? "-" : r.criterion});
      for (const auto& [task, name] : columns_) {
        const eval::Estimate* e = r.find(task, name);
        rows.back().push_back(e ? with_error(*e) : "-");
      }
    }
    return rows;
  }

  /// To the first result, with the standard error of a difference of independent samples.
  Rows difference_table() const {
    Rows rows = {{"result"}};
    for (const auto& [task, name] : columns_) rows[0].push_back(task + " " + name);
    for (std::size_t i = 1; i < results_.size(); ++i) {
      rows.push_back({results_[i].label});
      for (const auto& [task, name] : columns_) {
        const eval::Estimate* a = results_[0].find(task, name);
        const eval::Estimate* b = results_[i].find(task, name);
        if (a == nullptr || b == nullptr) {
          rows.back().push_back("-");
          continue;
        }
        const eval::Estimate d{b->value - a->value,
                               std::hypot(a->standard_error, b->standard_error)};
        rows.back().push_back((d.value >= 0 ? "+" : "") + with_error(d));
      }
    }
    return rows;
  }

  /// How the answers of MMLU-Pro came about.
  Rows answer_table() const {
    Rows rows = {{"result", "rule", "level 1", "level 2", "level 3", "guessed", "lucky",
                  "cut off by the limit"}};
    for (const eval::Result& r : results_) {
      if (r.mmlu_pro.is_null()) continue;
      const io::Json& s = r.mmlu_pro;
      const auto count = [&](const io::Json* j) {
        return j != nullptr && j->is_integer() ? std::to_string(j->as_int()) : std::string("-");
      };
      const io::Json& levels = s.at("levels");
      rows.push_back({r.label, s.at("rule").as_string(), count(levels.find("1")),
                      count(levels.find("2")), count(levels.find("3")), count(s.find("unanswered")),
                      count(s.find("lucky")), count(s.find("hit_limit"))});
    }
    return rows;
  }

  std::string csv() const {
    std::string out = "result,model,experts,criterion,task,metric,value,stderr\n";
    for (const eval::Result& r : results_) {
      for (const eval::ResultMetric& m : r.metrics) {
        const auto cell = [](double v) { return std::isfinite(v) ? io::dump(v) : std::string(); };
        out += csv_cell(r.label) + "," + csv_cell(r.model) + "," +
               (r.experts > 0 ? std::to_string(r.experts) : "") + "," + csv_cell(r.criterion) +
               "," + csv_cell(m.task) + "," + csv_cell(m.name) + "," + cell(m.estimate.value) +
               "," + cell(m.estimate.standard_error) + "\n";
      }
    }
    return out;
  }

  std::string markdown_page() const {
    std::string out = "# " + o_.title + "\n\n";
    if (!results_.empty()) out += markdown(main_table()) + "\n";
    if (results_.size() > 1) {
      out += "Against " + results_[0].label + ":\n\n" + markdown(difference_table()) + "\n";
    }
    if (const Rows answers = answer_table(); answers.size() > 1) {
      out += "Answers of MMLU-Pro:\n\n" + markdown(answers) + "\n";
    }
    for (const auto& [name, title] : plots_) out += fmt::format("![{}]({}.png)\n\n", title, name);
    return out;
  }

  io::Json as_json() const {
    io::Json j = io::Json::object();
    j["page"] = (output_ / "index.html").string();
    j["results"] = io::Json::array();
    for (const eval::Result& r : results_) {
      io::Json one = io::Json::object();
      one["result"] = r.label;
      one["model"] = r.model;
      one["experts"] = r.experts;
      one["criterion"] = r.criterion;
      one["metrics"] = io::Json::array();
      for (const eval::ResultMetric& m : r.metrics) {
        io::Json metric = io::Json::object();
        metric["task"] = m.task;
        metric["metric"] = m.name;
        metric["value"] = m.estimate.value;
        metric["stderr"] = m.estimate.standard_error;
        one["metrics"].push_back(std::move(metric));
      }
      j["results"].push_back(std::move(one));
    }
    return j;
  }

  // --- plots ---
  template <class Plot>
  void add_plot(const std::string& name, const std::string& title, const Plot& plot) {
    plot::save(plot, output_ / (name + ".png"));
    plot::save(plot, output_ / (name + ".svg"));
    figures_ += "<figure>" + inline_svg(plot::encode(plot, plot::Format::svg), plots_.size()) +
                "</figure>\n";
    plots_.push_back({name, title});
  }

  static std::string file_name(std::string text) {
    for (char& c : text) {
      const bool plain = std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.';
      c = plain ? c : '_';
    }
    return text;
  }

  /// A line per criterion; the unpruned model, if there is just one, is where all of them begin.
  void plot_kept_experts() {
    std::map<std::string, std::vector<const eval::Result*>> by_criterion;
    std::vector<const eval::Result*> whole;
    for (const eval::Result& r : results_) {
      if (r.experts == 0) continue;
      (r.criterion.empty() ? whole : by_criterion[r.criterion]).push_back(&r);
    }
    if (by_criterion.empty()) return;
    for (const auto& [task, name] : columns_) {
      plot::Curves curves;
      curves.labels = {task + " over kept experts", "experts per layer", name};
      for (const auto& [criterion, list] : by_criterion) {
        std::map<double, double> points;
        for (const eval::Result* r : list) add_point(points, *r, task, name);
        if (points.empty()) continue;
        if (whole.size() == 1) add_point(points, *whole[0], task, name);
        plot::Series series;
        series.label = criterion;
        series.markers = true;
        for (const auto& [x, y] : points) {
          series.x.push_back(x);
          series.y.push_back(y);
        }
        curves.series.push_back(std::move(series));
      }
      if (!curves.series.empty()) {
        add_plot(file_name("kept_" + task + "_" + name), curves.labels.title, curves);
      }
    }
  }
  static void add_point(std::map<double, double>& points, const eval::Result& r,
                        const std::string& task, const std::string& name) {
    if (const eval::Estimate* e = r.find(task, name)) {
      points[static_cast<double>(r.experts)] = e->value;
    }
  }

  static bool is_share(const std::string& name) {
    return name.starts_with("acc") || name == "macro" || name == "strict_accuracy";
  }

  /// One standard error each way.
  void plot_bars() {
    plot::Bars shares;
    shares.labels = {"Accuracy by task", "", "accuracy"};
    Columns drawn;
    for (const auto& column : columns_) {
      if (is_share(column.second)) drawn.push_back(column);
    }
    if (drawn.empty()) return;
    for (const auto& [task, name] : drawn) shares.categories.push_back(task + " " + name);
    for (const eval::Result& r : results_) {
      plot::BarSeries series{r.label, {}, {}};
      for (const auto& [task, name] : drawn) {
        const eval::Estimate* e = r.find(task, name);
        series.values.push_back(e ? e->value : std::nan(""));
        const bool known = e != nullptr && std::isfinite(e->standard_error);
        series.errors.push_back(known ? e->standard_error : 0.0);
      }
      shares.series.push_back(std::move(series));
    }
    shares.page.width =
        std::max(560.0, 60.0 + 26.0 * static_cast<double>(drawn.size() * results_.size()));
    add_plot("accuracy", shares.labels.title, shares);
  }

  void plot_categories() {
    plot::Bars bars;
    bars.labels = {"MMLU-Pro by category", "", "accuracy"};
    std::set<std::string> names;
    for (const eval::Result& r : results_) {
      if (r.mmlu_pro.is_null()) continue;
      for (const io::Json::Member& c : r.mmlu_pro.at("categories").members()) names.insert(c.key);
    }
    if (names.empty()) return;
    bars.categories.assign(names.begin(), names.end());
    for (const eval::Result& r : results_) {
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
    add_plot("mmlu_pro_categories", bars.labels.title, bars);
  }

  void plot_training() {
    if (runs_.empty()) return;
    plot::Curves curves;
    curves.labels = {"Training loss", "step", "loss"};
    for (const fs::path& run : runs_) {
      plot::Series series;
      fs::path name = run.lexically_normal();
      if (!name.has_filename()) name = name.parent_path();
      series.label = name.filename().string();
      for (const io::Json& line : io::read_jsonl(run / "train_log.jsonl")) {
        series.x.push_back(line.at("step").as_double());
        series.y.push_back(eval::detail::number_or_nan(line.find("loss")));
      }
      if (series.x.size() > 50) series.smoothing = static_cast<double>(series.x.size()) / 50;
      curves.series.push_back(std::move(series));
    }
    add_plot("training_loss", curves.labels.title, curves);
  }

  // --- the page ---
  std::string page() const {
    std::string out =
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<title>" +
        html(o_.title) +
        "</title>\n<style>\n"
        "body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:72em;margin:2em "
        "auto;padding:0 "
        "1em}\n"
        "table{border-collapse:collapse;margin:1em "
        "0;font-variant-numeric:tabular-nums;display:block;"
        "overflow-x:auto}\n"
        "th,td{border-bottom:1px solid #ddd;padding:.3em .8em;text-align:left;white-space:nowrap}\n"
        "th{border-bottom:2px solid #888}\nfigure{margin:1.5em 0;overflow-x:auto}\n"
        "svg{max-width:100%;height:auto}\n.note{color:#666}\n</style></head>\n<body>\n<h1>" +
        html(o_.title) + "</h1>\n";
    if (!results_.empty()) {
      out += "<h2>Results</h2>\n" + html_table(main_table());
      out += "<p class=\"note\">± one standard error.</p>\n";
    }
    if (results_.size() > 1) {
      out += "<h2>Against " + html(results_[0].label) + "</h2>\n" + html_table(difference_table());
    }
    if (const Rows answers = answer_table(); answers.size() > 1) {
      out += "<h2>Answers of MMLU-Pro</h2>\n" + html_table(answers);
    }
    return out + "<h2>Plots</h2>\n" + figures_ + "</body></html>\n";
  }

  const Options& o_;
  fs::path output_;
  std::vector<eval::Result> results_;
  std::vector<fs::path> runs_;  // of fine_tune
  Columns columns_;
  std::vector<std::pair<std::string, std::string>> plots_;  // file name, title
  std::string figures_;
};

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "report", "Tables, plots and one HTML page over several evaluation results.",
      [&](CLI::App& app) {
        app.add_option("results", o.results,
                       "Folders that evaluate or fine_tune wrote, or LightEval results files; the "
                       "others are compared with the first")
            ->required();
        app.add_option("--output", o.output, "Folder for the tables, plots and index.html")
            ->required();
        app.add_option("--title", o.title, "Heading of the page");
      },
      [&](const CommonOptions& common) {
        Report report(o);
        report.write();
        report.show(common.json);
      });
}
