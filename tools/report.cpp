// SPDX-License-Identifier: Apache-2.0
// report: tables, plots and one HTML page over several evaluation results.
//   report results/base results/keep6 results/keep4 --output report
// RESULTS are folders that evaluate wrote (or LightEval's results files); folders that fine_tune
// wrote add their loss curves. Written: results.csv, results.md, index.html, and the plots as PNG
// and SVG.
#include <espalier/eval/report.hpp>

#include "cli/print.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;

struct Options {
  std::vector<std::string> results;
  std::string output, title = "Evaluation";
};

void print_table(const eval::TableRows& rows) {
  Table table(rows[0]);
  for (std::size_t r = 1; r < rows.size(); ++r) table.add_row(rows[r]);
  table.print();
}

void run(const Options& o, const CommonOptions& common) {
  const eval::Report report(o.results, o.title);
  print_warnings("report", report.write(o.output));
  const std::string page = (std::filesystem::path(o.output) / "index.html").string();
  const std::vector<eval::Result>& results = report.results();
  if (common.json) {
    io::Json j = io::Json::object();
    j["page"] = page;
    j["results"] = eval::results_json(results);
    print("{}\n", io::dump(j));
    return;
  }
  if (!results.empty()) print_table(eval::value_table(results));
  for (const std::string& note : report.notes()) print("\n{}\n", note);
  if (results.size() > 1) {
    print("\nagainst {}:\n", results[eval::reference_of(results)].label);
    print_table(eval::difference_table(results));
  }
  print("\n{}\n", page);
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "report", "Tables, plots and one HTML page over several evaluation results.",
      [&](CLI::App& app) {
        app.add_option("results", o.results,
                       "Folders that evaluate or fine_tune wrote, or results files of LightEval or "
                       "lm-evaluation-harness; the others are compared with the unpruned one")
            ->required();
        app.add_option("--output", o.output, "Folder for the tables, plots and index.html")
            ->required();
        app.add_option("--title", o.title, "Heading of the page");
      },
      [&](const CommonOptions& common) { run(o, common); });
}
