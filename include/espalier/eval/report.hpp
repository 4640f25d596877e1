// SPDX-License-Identifier: Apache-2.0
// Writes a report over several evaluations and training runs into one folder: results.csv,
// results.md, index.html, and every plot as PNG and SVG. The page embeds its plots and loads
// nothing.
//   eval::Report report({"results/base", "results/keep4", "run"}, "Pruned models");
//   for (const std::string& warning : report.write("report")) std::cerr << warning << "\n";
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/report.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <string>
#include <vector>

#include <espalier/eval/report_plots.hpp>
#include <espalier/eval/report_tables.hpp>

namespace espalier::eval {

class Report {
 public:
  /// @param paths what read_result takes; a folder with a train_log.jsonl adds its loss curve
  /// @throws IoError, FormatError
  explicit Report(const std::vector<std::string>& paths, std::string title = "Evaluation");

  /// In the order of the paths, with distinct labels.
  const std::vector<Result>& results() const { return results_; }
  const std::vector<ReportPlot>& plots() const { return plots_; }
  /// What was not asked or computed alike.
  const std::vector<std::string>& notes() const { return notes_; }

  std::string markdown() const;
  /// The page index.html, with the plots embedded.
  std::string page() const;
  /// Creates the folder if need be. Writes the tables first, which do not depend on pictures; the
  /// page replaces a plot that cannot be drawn by the reason.
  /// @returns warnings: a line for every picture that is missing or leaves something out
  /// @throws IoError
  [[nodiscard]] std::vector<std::string> write(const std::filesystem::path& folder) const;

 private:
  void tell_labels_apart();
  std::string figure(std::size_t number) const;

  std::string title_;
  std::vector<Result> results_;
  std::vector<std::string> notes_;
  std::vector<ReportPlot> plots_;
};

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <set>

#include <espalier/io/atomic_folder.hpp>

namespace espalier::eval {

namespace detail {
inline constexpr const char* kPageStyle =
    "body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:72em;margin:2em auto;padding:0 "
    "1em}\n"
    "table{border-collapse:collapse;margin:1em 0;font-variant-numeric:tabular-nums;display:block;"
    "overflow-x:auto}\n"
    "th,td{border-bottom:1px solid #ddd;padding:.3em .8em;text-align:left;white-space:nowrap}\n"
    "th{border-bottom:2px solid #888}\nfigure{margin:1.5em 0;overflow-x:auto}\n"
    "svg{max-width:100%;height:auto}\n.note{color:#666}\n"
    ".overview tr:nth-child(2){font-weight:bold}\n"
    "@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}\n"
    "th,td{border-color:#444}.note{color:#999}figure svg{background:#fff;border-radius:4px}}\n";
}  // namespace detail

ESP_INLINE Report::Report(const std::vector<std::string>& paths, std::string title)
    : title_(std::move(title)) {
  namespace fs = std::filesystem;
  std::vector<fs::path> runs;
  for (const fs::path path : paths) {
    const bool training = fs::exists(path / "train_log.jsonl");
    if (training) runs.push_back(path);
    if (!training || fs::exists(path / "summary.json")) results_.push_back(read_result(path));
  }
  tell_labels_apart();
  notes_ = tell_tasks_apart(results_);
  std::set<std::string> dtypes;
  for (const Result& r : results_) {
    if (!r.dtype.empty()) dtypes.insert(r.dtype);
  }
  if (dtypes.size() > 1) {
    notes_.push_back("the results were computed in several types: " + [&] {
      std::string names;
      for (const std::string& d : dtypes) names += (names.empty() ? "" : ", ") + d;
      return names;
    }());
  }
  plots_ = report_plots(results_, runs);
}

ESP_INLINE void Report::tell_labels_apart() {
  std::set<std::string> labels;
  for (Result& r : results_) {
    const std::string plain = r.label;
    for (int n = 2; !labels.insert(r.label).second; ++n) {
      r.label = plain + " (" + std::to_string(n) + ")";
    }
  }
}

ESP_INLINE std::string Report::markdown() const {
  std::string out = "# " + markdown_text(title_) + "\n\n";
  const TableRows overview = overview_table(results_);
  if (results_.size() > 1 && !overview.empty()) out += markdown_table(overview) + "\n";
  if (!results_.empty()) out += markdown_table(value_table(results_)) + "\n";
  for (const std::string& note : notes_) out += "Note: " + markdown_text(note) + "\n\n";
  if (results_.size() > 1) {
    out += "Against " + markdown_text(results_[reference_of(results_)].label) + ":\n\n" +
           markdown_table(difference_table(results_)) + "\n";
  }
  if (const TableRows answers = answer_table(results_); answers.size() > 1) {
    out += "Answers of MMLU-Pro:\n\n" + markdown_table(answers) + "\n";
  }
  for (const ReportPlot& p : plots_) {
    out += "![" + markdown_text(p.title()) + "](" + p.file + ".png)\n\n";
    if (!p.note.empty()) out += p.note + "\n\n";
  }
  return out;
}

ESP_INLINE std::string Report::figure(std::size_t number) const {
  const ReportPlot& p = plots_[number];
  const auto note = [](const std::string& text) {
    return text.empty() ? "" : "<figcaption class=\"note\">" + escape_html(text) + "</figcaption>";
  };
  try {
    const std::string svg = inline_svg(p.encode(plot::Format::svg), number);
    return "<figure>" + svg + note(p.note) + "</figure>\n";
  } catch (const Error& e) {
    return "<figure>" + note(p.title() + " could not be drawn: " + e.what()) + "</figure>\n";
  }
}

ESP_INLINE std::string Report::page() const {
  std::string figures;
  for (std::size_t i = 0; i < plots_.size(); ++i) figures += figure(i);
  const std::string title = escape_html(title_);
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width,initial-scale=1\">\n<meta name=\"color-scheme\" "
      "content=\"light dark\">\n<title>" +
      title + "</title>\n<style>\n" + detail::kPageStyle + "</style></head>\n<body>\n<h1>" + title +
      "</h1>\n";
  const TableRows overview = overview_table(results_);
  if (results_.size() > 1 && !overview.empty()) {
    out += "<h2>Which model?</h2>\n<div class=\"overview\">" + html_table(overview) + "</div>\n";
  }
  if (!results_.empty()) {
    out += "<h2>Results</h2>\n" + html_table(value_table(results_));
    out += "<p class=\"note\">± one standard error; [95 % interval of Wilson].</p>\n";
  }
  for (const std::string& note : notes_) {
    out += "<p class=\"note\">" + escape_html(note) + ".</p>\n";
  }
  if (results_.size() > 1) {
    out += "<h2>Against " + escape_html(results_[reference_of(results_)].label) + "</h2>\n" +
           html_table(difference_table(results_)) +
           "<p class=\"note\">Paired by question where both have journals: ± standard error of the "
           "difference, p of McNemar's exact test, adjusted by Holm.</p>\n";
  }
  if (const TableRows answers = answer_table(results_); answers.size() > 1) {
    out += "<h2>Answers of MMLU-Pro</h2>\n" + html_table(answers);
  }
  return out + "<h2>Plots</h2>\n" + figures + "</body></html>\n";
}

ESP_INLINE std::vector<std::string> Report::write(const std::filesystem::path& folder) const {
  const io::OutputLock lock = io::open_output(folder);
  io::write_text(folder / "results.csv", results_csv(results_));
  io::write_text(folder / "results.md", markdown());
  io::write_text(folder / "index.html", page());
  std::vector<std::string> warnings;
  for (const ReportPlot& p : plots_) {
    for (const char* extension : {".png", ".svg"}) {
      std::string reason = p.save_or_reason(folder / (p.file + extension));
      if (!reason.empty()) warnings.push_back(std::move(reason));
    }
    if (!p.note.empty()) warnings.push_back(p.file + ": " + p.note);
  }
  return warnings;
}

}  // namespace espalier::eval
#endif
