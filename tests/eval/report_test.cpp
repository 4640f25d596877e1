// SPDX-License-Identifier: Apache-2.0
// Tables and pages over several results: numbers, errors, escapes, and one SVG beside another.
#include <espalier/eval/report.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace espalier::eval {
namespace {

namespace fs = std::filesystem;

Result result(const std::string& label, double accuracy, double error) {
  Result r;
  r.label = label;
  r.model = "m, \"" + label + "\"";
  r.experts = 4;
  r.metrics = {{"arc:easy", "acc", {accuracy, error}}};
  return r;
}

void write_summary(const fs::path& folder, const std::string& text) {
  fs::create_directories(folder);
  io::write_text(folder / "summary.json", text);
}

TEST_CASE("Tables of results have values, errors and differences to the first", "[eval]") {
  const double none = std::nan("");
  std::vector<Result> results = {result("a", 0.5, 0.03), result("b|<c>", 0.25, 0.04)};
  results[1].metrics.push_back({"loss", "ppl", {1234.56, none}});
  const TableRows values = value_table(results), differences = difference_table(results);
  CHECK(values[0] == std::vector<std::string>{"result", "model", "experts", "criterion",
                                              "arc:easy acc", "loss ppl"});
  CHECK(values[1] == std::vector<std::string>{"a", "m, \"a\"", "4", "-", "0.5000 ± 0.0300", "-"});
  CHECK(values[2].back() == "1234.6");
  REQUIRE(differences.size() == 2);
  CHECK(differences[1] == std::vector<std::string>{"b|<c>", "-0.2500 ± 0.0500", "-"});
  CHECK(answer_table(results).size() == 1);
  CHECK(results_csv(results) ==
        "result,model,experts,criterion,task,metric,value,stderr\n"
        "a,\"m, \"\"a\"\"\",4,,arc:easy,acc,0.5,0.03\n"
        "b|<c>,\"m, \"\"b|<c>\"\"\",4,,arc:easy,acc,0.25,0.04\n"
        "b|<c>,\"m, \"\"b|<c>\"\"\",4,,loss,ppl,1234.56,\n");
  CHECK(markdown_table(differences) ==
        "| result | arc:easy acc | loss ppl |\n|---|---|---|\n"
        "| b\\|<c> | -0.2500 ± 0.0500 | - |\n");
  CHECK(html_table({{"a&\"b\""}, {"<c>"}}) ==
        "<table>\n<tr><th>a&amp;&quot;b&quot;</th></tr>\n<tr><td>&lt;c&gt;</td></tr>\n</table>\n");
}

TEST_CASE("An SVG inside a page has ids of its own and no namespaces", "[eval]") {
  CHECK(inline_svg("<?xml?>\n<svg xmlns=\"n\" xmlns:xlink=\"x\" width=\"9\"><g id=\"a\"/>"
                   "<use xlink:href=\"#a\"/><p fill=\"url(#a)\"/></svg>",
                   3) ==
        "<svg width=\"9\"><g id=\"p3-a\"/><use xlink:href=\"#p3-a\"/>"
        "<p fill=\"url(#p3-a)\"/></svg>");
}

TEST_CASE("A report names plots by what they show, and tells equal labels apart", "[eval]") {
  const test::TemporaryFolder folder;
  write_summary(folder / "base", R"({"model": {"name": "m", "experts": 8}, "tasks": {"arc:easy":
                {"acc": 0.75, "acc_stderr": 0.1}}})");
  write_summary(folder / "other/base", R"({"model": {"name": "m4", "experts": 4, "pruning":
                {"criterion": "reap"}}, "tasks": {"arc:easy": {"acc": 0.5, "acc_stderr": 0.1}}})");
  fs::create_directories(folder / "run");
  io::write_text(folder / "run/train_log.jsonl", "{\"step\": 1, \"loss\": 3}\n");
  const Report report(
      {(folder / "base/").string(), (folder / "other/base").string(), (folder / "run").string()},
      "a < b");
  REQUIRE(report.results().size() == 2);
  CHECK(report.results()[0].label == "base");
  CHECK(report.results()[1].label == "base (2)");
  REQUIRE(report.plots().size() == 3);
  CHECK(report.plots()[0].file == "kept_arc_easy_acc");
  CHECK(report.plots()[1].file == "accuracy");
  CHECK(report.plots()[2].title() == "Training loss");
  // The unpruned model is where the line of a criterion begins.
  const auto& kept = std::get<plot::Curves>(report.plots()[0].drawing);
  REQUIRE(kept.series.size() == 1);
  CHECK(kept.series[0].label == "reap");
  CHECK(kept.series[0].x == std::vector<double>{4, 8});
  CHECK(kept.series[0].y == std::vector<double>{0.5, 0.75});

  report.write(folder / "out/page");
  for (const char* name : {"results.csv", "results.md", "index.html", "kept_arc_easy_acc.png",
                           "accuracy.svg", "training_loss.svg"}) {
    CHECK(fs::file_size(folder / "out/page" / name) > 100);
  }
  const std::string page = test::read_bytes(folder / "out/page/index.html");
  CHECK_THAT(page, Catch::Contains("<h1>a &lt; b</h1>") && Catch::Contains("id=\"p2-"));
  CHECK_THAT(report.markdown(), Catch::Contains("![Training loss](training_loss.png)"));
  CHECK_THROWS_AS(Report({(folder / "none").string()}), IoError);
}

}  // namespace
}  // namespace espalier::eval
