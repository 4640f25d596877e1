// SPDX-License-Identifier: Apache-2.0
// Tables and pages over several results: numbers, errors, escapes, and one SVG beside another.
#include <espalier/eval/report.hpp>

#include <set>

#include "eval/fake_model.hpp"
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

TEST_CASE("Differences are paired by question where there are journals, against the unpruned model",
          "[eval]") {
  const test::Folder folder("paired");
  // 400 questions: 14 lost and 2 gained. numpy: d.std(ddof=1) / 20 = 0.00991; scipy:
  // binomtest(2, 16).pvalue = 0.0041809
  const auto write = [&](const char* name, int experts, const auto& is_right) {
    std::filesystem::create_directories(folder.path / name);
    std::string journal;
    int right = 0;
    for (int i = 0; i < 400; ++i) {
      const int acc = is_right(i) ? 1 : 0;
      right += acc;
      journal += R"({"id": )" + std::to_string(i) + R"(, "prompt": "p", "acc": )" +
                 std::to_string(acc) + "}\n";
    }
    io::write_text(folder.path / name / "arc_easy.jsonl", journal);
    io::write_text(folder.path / name / "summary.json",
                   R"({"model": {"name": "m", "experts": )" + std::to_string(experts) +
                       (experts < 8 ? R"(, "pruning": {"criterion": "reap"})" : "") +
                       R"(}, "tasks": {"arc:easy": {"shots": 0, "documents": 400, "acc": )" +
                       std::to_string(right / 400.0) + R"(, "acc_stderr": 0.025}}})");
    return read_result(folder.path / name);
  };
  const std::vector<Result> results = {
      write("pruned", 4, [](int i) { return i < 200 && i >= 14 ? true : i == 300 || i == 301; }),
      write("whole", 8, [](int i) { return i < 200; })};
  CHECK(reference_of(results) == 1);
  const TableRows rows = difference_table(results);
  REQUIRE(rows.size() == 2);
  CHECK(rows[1][0] == "pruned");
  CHECK(rows[1][1] == "-0.0300 ± 0.0099, p 0.00418");
  const TableRows overview = overview_table(results);
  REQUIRE(overview.size() == 3);
  CHECK(overview[1][0] == "whole");  // the best first
  io::write_text(folder.path / "pruned/arc_easy.jsonl", R"({"id": 0, "prompt": "other", "acc": 1})"
                                                        "\n");
  CHECK(difference_table(results)[1][1] == "other questions");
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
  CHECK(differences[1] == std::vector<std::string>{"b|<c>", "-0.2500 ± 0.0500 (unpaired)", "-"});
  CHECK(answer_table(results).size() == 1);
  CHECK(results_csv(results) ==
        "result,model,experts,criterion,task,metric,value,stderr\n"
        "a,\"m, \"\"a\"\"\",4,,arc:easy,acc,0.5,0.03\n"
        "b|<c>,\"m, \"\"b|<c>\"\"\",4,,arc:easy,acc,0.25,0.04\n"
        "b|<c>,\"m, \"\"b|<c>\"\"\",4,,loss,ppl,1234.56,\n");
  CHECK(markdown_table(differences) ==
        "| result | arc:easy acc | loss ppl |\n|---|---|---|\n"
        "| b\\|&lt;c&gt; | -0.2500 ± 0.0500 (unpaired) | - |\n");
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

  CHECK(report.write(folder / "out/page").empty());
  for (const char* name : {"results.csv", "results.md", "index.html", "kept_arc_easy_acc.png",
                           "accuracy.svg", "training_loss.svg"}) {
    CHECK(fs::file_size(folder / "out/page" / name) > 100);
  }
  const std::string page = test::read_bytes(folder / "out/page/index.html");
  CHECK_THAT(page, Catch::Contains("<h1>a &lt; b</h1>") && Catch::Contains("id=\"p2-"));
  CHECK_THAT(report.markdown(), Catch::Contains("![Training loss](training_loss.png)"));
  CHECK_THROWS_AS(Report({(folder / "none").string()}), IoError);
}

TEST_CASE("Tables are safe in a browser, in Markdown and in a spreadsheet", "[eval]") {
  const std::string bad = "<script>a('b')</script>\x1b[2J\xff|[x](javascript:y)`\n";
  CHECK(escape_html(bad) ==
        "&lt;script&gt;a('b')&lt;/script&gt;\\x1b[2J\\xff|[x](javascript:y)`\\x0a");
  CHECK(markdown_text(bad) ==
        "&lt;script&gt;a('b')&lt;/script&gt;\\\\x1b\\[2J\\\\xff\\|\\[x\\](javascript:y)\\`\\\\x0a");
  std::vector<Result> results;
  for (const std::string label :
       {"=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\tx", "\rx", "plain", "a=b"}) {
    results.push_back(result(label, -0.5, 0.1));
  }
  const std::string csv = results_csv(results);
  std::string cells;  // the first of each line
  for (std::size_t at = 0; at < csv.size(); at = csv.find('\n', at) + 1) {
    cells += csv.substr(at, csv.find(',', at) - at) + ";";
  }
  CHECK(cells == "result;'=cmd|' /C calc'!A0;'+1;'-1;'@SUM(A1);'\tx;\"'\rx\";plain;a=b;");
  CHECK_THAT(csv, Catch::Contains(",acc,-0.5,0.1\n"));  // numbers stay numbers
}

TEST_CASE("A page is UTF-8 whatever the folders are called", "[eval]") {
  const test::TemporaryFolder folder;
  const std::string name = "b\xe4r\xff<b>\x1b[0m";
  write_summary(folder / name, R"({"model": {"name": "m", "experts": 8}, "tasks": {"arc:easy":
                {"acc": 0.75, "acc_stderr": 0.1}}})");
  write_summary(folder / "other", R"({"model": {"name": "m", "experts": 8}, "tasks": {"arc:easy":
                {"acc": 0.7, "acc_stderr": 0.1}}})");
  const Report report({(folder / name).string(), (folder / "other").string()}, "t\xfe");
  CHECK(report.write(folder / "out").empty());
  for (const char* file : {"index.html", "results.md"}) {
    const std::string text = test::read_bytes(folder / "out" / file);
    for (std::size_t at = 0, n; at < text.size(); at += n) {
      n = utf8_length(text, at);
      REQUIRE(n > 0);
    }
    CHECK_THAT(text,
               Catch::Contains("xe4r") && !Catch::Contains("<b>") && !Catch::Contains("\x1b"));
  }
}

TEST_CASE("A report of many tasks and results goes on pages", "[eval]") {
  // 57 subjects of 12 results, and more groups than 16 pages hold.
  const auto many = [](int tasks, int count) {
    std::vector<Result> results;
    for (int r = 0; r < count; ++r) {
      results.push_back(result("model " + std::to_string(r), 0.5, 0.03));
      results.back().metrics.clear();
      for (int t = 0; t < tasks; ++t) {
        results.back().metrics.push_back(
            {"task" + std::to_string(t), "acc", {t / static_cast<double>(tasks), 0.01}});
      }
    }
    return results;
  };
  const auto check = [](const std::vector<ReportPlot>& plots, std::size_t groups) {
    std::size_t drawn = 0;
    std::set<std::string> files;
    for (const ReportPlot& p : plots) {
      const auto& bars = std::get<plot::Bars>(p.drawing);
      CHECK(bars.page.width <= 1600);
      CHECK(bars.page.width >= 560);
      for (const plot::BarSeries& s : bars.series) CHECK(s.values.size() == bars.categories.size());
      // In order, and none twice.
      CHECK(bars.categories.front() == "task" + std::to_string(drawn) + " acc");
      drawn += bars.categories.size();
      files.insert(p.file);
    }
    CHECK(drawn == groups);
    CHECK(files.size() == plots.size());
  };
  const std::vector<ReportPlot> one = accuracy_plots(many(3, 2));
  REQUIRE(one.size() == 1);
  CHECK(one[0].file == "accuracy");
  CHECK(one[0].title() == "Accuracy by task");
  const std::vector<ReportPlot> subjects = accuracy_plots(many(57, 12));
  CHECK(subjects.size() == 15);  // of four groups, 1560 points wide
  check(subjects, 57);
  CHECK(subjects[14].title() == "Accuracy by task (15 of 15)");
  CHECK(subjects[14].note.empty());
  (void)subjects[14].encode(plot::Format::png);
  const std::vector<ReportPlot> cut = accuracy_plots(many(5000, 2));
  CHECK(cut.size() == 16);
  check(cut, 16 * 29);
  CHECK(cut.back().note == "the plots show the first 464 of 5000 groups of bars");
  check(accuracy_plots(many(2, 500)), 2);  // one group is wider than a page

  const std::vector<Result> pruned = [&] {
    std::vector<Result> r = many(100, 2);
    r[1].criterion = "reap";
    return r;
  }();
  const std::vector<ReportPlot> kept = kept_experts_plots(pruned);
  CHECK(kept.size() == 64);
  CHECK(kept.back().note == "of 100 metrics the first 64 are drawn over kept experts");
}

TEST_CASE("A picture that cannot be written is a warning, and the tables are there", "[eval]") {
  const test::TemporaryFolder folder;
  write_summary(folder / "base", R"({"model": {"name": "m", "experts": 8}, "tasks": {"arc:easy":
                {"acc": 0.75, "acc_stderr": 0.1}}})");
  const Report report({(folder / "base").string()});
  fs::create_directories(folder / "out/accuracy.png");
  const std::vector<std::string> warnings = report.write(folder / "out");
  REQUIRE(warnings.size() == 1);
  CHECK_THAT(warnings[0],
             Catch::StartsWith((folder / "out/accuracy.png").string() + ": cannot create: "));
  for (const char* name : {"results.csv", "results.md", "index.html", "accuracy.svg"}) {
    CHECK(fs::file_size(folder / "out" / name) > 50);
  }
}

}  // namespace
}  // namespace espalier::eval
