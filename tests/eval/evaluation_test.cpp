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

}  // namespace espalier::eval
