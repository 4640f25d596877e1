// SPDX-License-Identifier: Apache-2.0
// An evaluation from a program of one's own leaves what the program evaluate leaves.
#include <cstdlib>

#include <espalier/eval/evaluation.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace espalier::eval {
namespace fs = std::filesystem;

TEST_CASE("An evaluation of one's own has the program's results", "[eval]") {
  test::TemporaryFolder folder;
  fs::create_directories(folder / "data/multiple_choice");
  test::write_bytes(folder / "data/multiple_choice/arc_easy.jsonl",
                    R"({"query": "the tree is", "choices": [" pruned", " trained"], "gold": 0})"
                    "\n"
                    R"({"query": "trees", "choices": [" grow", " are fit", " go"], "gold": 2})"
                    "\n");
  test::write_bytes(folder / "held_out.jsonl",
                    "{\"text\": \"the tree grows\"}\n{\"prompt\": \"is it \", \"response\": "
                    "\"pruned\"}\n");
  EvaluationConfig config;
  config.model = std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/model";
  config.data = (folder / "data").string();
  config.text = (folder / "held_out.jsonl").string();
  config.output = (folder / "own").string();
  config.tasks = {"arc:easy", "loss"};
  Evaluation run(config);
  std::size_t questions = 0;
  std::vector<std::string> notes;
  run.progress = [&](const std::string&, std::size_t done, std::size_t) { questions = done; };
  run.on_note = [&](const std::string& line) { notes.push_back(line); };
  const io::Json summary = run.run_tasks();
  CHECK(questions == 2);
  CHECK(run.tokens() > 0);
  REQUIRE(run.results().size() == 2);
  CHECK(run.results()[0].task == "arc:easy");
  REQUIRE(notes.size() == 2);
  CHECK_THAT(notes[1], Catch::Contains("joined without a chat template"));
  CHECK(io::dump(summary, 2) + "\n" == test::read_bytes(folder / "own/summary.json"));

  const std::string command = std::string(ESPALIER_BIN_DIR) + "/evaluate --threads 1 --model " +
                              config.model + " --data " + config.data + " --text " + config.text +
                              " --task arc:easy,loss --output " + (folder / "program").string() +
                              " > /dev/null 2>&1";
  REQUIRE(std::system(command.c_str()) == 0);
  for (const char* file : {"summary.json", "arc_easy.jsonl", "loss.jsonl"}) {
    CHECK(test::read_bytes(folder / "own" / file) == test::read_bytes(folder / "program" / file));
  }
}

TEST_CASE("An evaluation says what is wrong before it loads a model", "[eval]") {
  EvaluationConfig config;
  config.model = "/nonexistent";
  config.tasks = {"loss"};
  CHECK_THROWS_WITH(Evaluation(config), "task loss needs a JSONL file of texts");
  config.tasks = {"arc:easy"};
  CHECK_THROWS_WITH(Evaluation(config), "task arc:easy needs the data folder");
  config.data = "/nonexistent";
  config.tasks = {"lambada", "lambada"};
  CHECK_THROWS_WITH(Evaluation(config), "task lambada stands twice");
}

TEST_CASE("An evaluation checks what its end needs before the first question", "[eval]") {
  test::TemporaryFolder folder;
  fs::copy(std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/model", folder / "m");
  test::write_bytes(folder / "text.jsonl", "{\"text\": \"the tree grows\"}\n");
  fs::create_directories(folder / "data/multiple_choice");
  test::write_bytes(folder / "data/multiple_choice/arc_easy.jsonl",
                    R"({"query": "the tree is", "choices": [" pruned", " trained"], "gold": 0})"
                    "\n");
  EvaluationConfig config;
  config.model = (folder / "m").string();
  config.data = (folder / "data").string();
  config.text = (folder / "text.jsonl").string();
  config.output = (folder / "o").string();
  config.tasks = {"arc:easy", "loss"};
  const auto message = [&] {
    return test::message_of<Error>([&] { Evaluation run(config); }, folder.path());
  };
  const fs::path plan = folder / "m/pruning_plan.json";
  for (const auto& [content, said] :
       {std::pair("[]", "m/pruning_plan.json: expected an object, found an array"),
        {"{\"provenance\": \"me\"}",
         "m/pruning_plan.json: at \"provenance\": expected an object, found a string"},
        {"{\"provenance\": {\"criterion\": 3}}",
         "m/pruning_plan.json: at \"provenance\".\"criterion\": expected a string, found an "
         "integer"}}) {
    test::write_bytes(plan, content);
    CHECK(message() == said);
  }
  test::write_bytes(plan, "{\"provenance\": ");
  CHECK_THAT(message(), Catch::StartsWith("m/pruning_plan.json: "));
  fs::remove(plan);
  CHECK_FALSE(fs::exists(folder / "o"));

  // The second task's data and journal, and folders for the results.
  test::write_bytes(folder / "text.jsonl", "{\"text\": 3}\n");
  CHECK_THAT(message(), Catch::StartsWith("text.jsonl: line 1"));
  test::write_bytes(folder / "text.jsonl", "{\"text\": \"the tree grows\"}\n");
  fs::create_directories(folder / "o");
  test::write_bytes(folder / "o/loss.jsonl", "");
  CHECK(message() ==
        "o/loss.jsonl: exists already; resume to go on with it, or choose another output folder");
  fs::remove(folder / "o/loss.jsonl");
  test::write_bytes(folder / "o/results", "");
  CHECK_THAT(message(), Catch::StartsWith("o/results"));
  fs::remove(folder / "o/results");
  config.shots = 1;
  CHECK_THAT(message(), Catch::StartsWith("arc:easy: 1 shots"));
  config.shots = -1;
  config.tasks = {"arc:easy", "arc_easy"};
  CHECK(message() ==
        "tasks arc:easy and arc_easy have the same journal, arc_easy.jsonl; give one of them");
  config.tasks = {"arc:easy", "loss"};
  CHECK(message() == "no exception");
}

TEST_CASE("File names of any name are short, different and one component", "[eval]") {
  CHECK(file_name_of("arc_easy") == "arc_easy");
  CHECK(file_name_of("computer science") == "computer science");
  CHECK(file_name_of("a/../b") == "a_.._b");
  for (const char* name : {"", ".", ".."}) CHECK(file_name_of(name) == std::string(name) + "_");
  CHECK(file_name_of(std::string(200, 'x')) == std::string(200, 'x'));
  const std::string a = file_name_of(std::string(300, 'x') + "a"),
                    b = file_name_of(std::string(300, 'x') + "b");
  CHECK(a != b);
  CHECK(a.size() == 160 + 1 + 16);
  std::string trees;  // four bytes each
  for (int i = 0; i < 100; ++i) trees += i == 0 ? "x🌳" : "🌳";
  const std::string cut = file_name_of(trees);
  CHECK(cut.substr(0, cut.rfind('-')) == trees.substr(0, 157));
}

}  // namespace espalier::eval
