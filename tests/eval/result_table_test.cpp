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

}  // namespace
}  // namespace espalier::eval
