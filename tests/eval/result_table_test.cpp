// SPDX-License-Identifier: Apache-2.0
#include <espalier/eval/result_table.hpp>

#include "eval/fake_model.hpp"
#include "support/catch.hpp"

namespace espalier::eval {
namespace {

TEST_CASE("Results are read from evaluations, replays and LightEval's files", "[eval]") {
  const test::Folder folder("results");
  const auto at = [&](const char* name) {
    std::filesystem::create_directories(folder.path / name);
    return folder.path / name;
  };
  io::write_text(at("keep4") / "summary.json",
                 R"({"model": {"name": "m4", "experts": 4, "pruning": {"criterion": "reap"}},
                     "tasks": {"arc:easy": {"shots": 0, "documents": 9, "acc": 0.5,
                     "acc_stderr": null}, "mmlu_pro": {"accuracy": 0.25, "accuracy_stderr": 0.01,
                     "macro": 0.2, "levels": {}}}})");
  io::write_text(at("replayed") / "summary.json", R"({"rule": "current", "accuracy": 0.75})");
  std::filesystem::create_directories(at("light") / "results/m");
  io::write_text(at("light") / "results/m/results_2025.json",
                 R"({"config_general": {"model_name": "m"}, "results": {"arc:easy|0": {"acc": 1,
                     "acc_stderr": 0.5}, "all": {"acc": 1}}})");

  const std::vector<Result> results = {read_result(folder.path / "keep4/"),
                                       read_result(folder.path / "replayed"),
                                       read_result(folder.path / "light")};
  CHECK(results[0].label == "keep4");
  CHECK(results[0].model == "m4");
  CHECK(results[0].experts == 4);
  CHECK(results[0].criterion == "reap");
  REQUIRE(results[0].find("arc:easy", "acc") != nullptr);
  CHECK(results[0].find("arc:easy", "acc")->value == 0.5);
  CHECK(std::isnan(results[0].find("arc:easy", "acc")->standard_error));
  CHECK(results[0].find("mmlu_pro", "accuracy")->standard_error == 0.01);
  CHECK(results[0].find("arc:easy", "documents") == nullptr);
  CHECK(results[1].model == "replayed");
  CHECK(results[1].find("mmlu_pro", "accuracy")->value == 0.75);
  CHECK(results[2].model == "m");
  CHECK(results[2].find("arc:easy", "acc")->standard_error == 0.5);
  CHECK(results[2].find("all", "acc") == nullptr);
  const auto columns = metric_columns(results);
  REQUIRE(columns.size() == 3);
  CHECK(columns[1] == std::pair<std::string, std::string>("mmlu_pro", "accuracy"));

  CHECK_THROWS_AS(read_result(at("empty")), IoError);
  io::write_text(at("bad") / "summary.json", "[]");
  CHECK_THROWS_AS(read_result(folder.path / "bad"), FormatError);
}

TEST_CASE("What was not asked alike has columns of its own, and says why", "[eval]") {
  const test::Folder folder("apart");
  const auto at = [&](const char* name) {
    std::filesystem::create_directories(folder.path / name);
    return folder.path / name;
  };
  const auto write = [&](const char* name, int shots, int n, double acc) {
    io::write_text(at(name) / "summary.json",
                   R"({"model": {"name": "m", "experts": 8}, "tasks": {"arc:easy": {"shots": )" +
                       std::to_string(shots) + R"(, "documents": )" + std::to_string(n) +
                       R"(, "acc": )" + std::to_string(acc) +
                       R"(, "acc_stderr": 0.1, "tokens_asked": 77}}})");
    return read_result(folder.path / name);
  };
  std::vector<Result> same = {write("a", 0, 100, .5), write("b", 0, 100, .6)};
  CHECK(tell_tasks_apart(same).empty());
  CHECK(metric_columns(same).size() == 1);
  std::vector<Result> apart = {write("c", 0, 2376, .5), write("d", 25, 100, .6)};
  const auto notes = tell_tasks_apart(apart);
  REQUIRE(notes.size() == 1);
  CHECK(notes[0] ==
        "arc:easy was not asked alike, so it has several columns: arc:easy|0 (n=2376); "
        "arc:easy|25 (n=100)");
  CHECK(apart[0].find("arc:easy|0 (n=2376)", "acc")->value == .5);
  CHECK(metric_columns(apart).size() == 2);

  // One file with both, as LightEval writes it.
  io::write_text(folder.path / "results_1.json",
                 R"({"config_general": {"model_name": "m"}, "results": {
                     "arc:easy|0": {"acc": 0.6, "acc_stderr": 0.1},
                     "arc:easy|25": {"acc": 0.7, "acc_stderr": 0.1}}})");
  std::vector<Result> both = {read_result(folder.path / "results_1.json")};
  (void)tell_tasks_apart(both);
  CHECK(both[0].find("arc:easy|0", "acc")->value == 0.6);
  CHECK(both[0].find("arc:easy|25", "acc")->value == 0.7);
}

TEST_CASE("Results of lm-evaluation-harness: metrics by filter, with their errors", "[eval]") {
  const test::Folder folder("lm_eval");
  std::filesystem::create_directories(folder.path / "zzz-old");
  std::filesystem::create_directories(folder.path / "aaa-new");
  const auto write = [&](const char* name, double acc) {
    io::write_text(folder.path / name,
                   R"({"model_name": "m", "n-shot": {"gsm8k": 5}, "versions": {"gsm8k": 3.0},
                       "n-samples": {"gsm8k": {"effective": 50}}, "results": {"gsm8k": {
                       "alias": "gsm8k", "sample_len": 50, "acc,none": )" +
                       std::to_string(acc) + R"(, "acc_stderr,none": 0.01,
                       "exact_match,strict-match": 0.25, "exact_match_stderr,strict-match": 0.02}}})");
  };
  write("zzz-old/results_2024-01-01.json", 0.1);
  write("aaa-new/results_2026-01-01.json", 0.3);
  const Result r = read_result(folder.path);
  REQUIRE(r.metrics.size() == 2);
  CHECK(r.find("gsm8k", "acc")->value == 0.3);  // the newest by its name
  CHECK(r.find("gsm8k", "acc")->standard_error == 0.01);
  CHECK(r.find("gsm8k", "exact_match,strict-match")->standard_error == 0.02);
  CHECK(r.settings.at("gsm8k").shots == "5");
  CHECK(r.settings.at("gsm8k").questions == 50);
}

}  // namespace
}  // namespace espalier::eval
