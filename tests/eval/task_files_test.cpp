// SPDX-License-Identifier: Apache-2.0
// Tasks by name: which definition, which file, and what is said where there is none.
#include <espalier/eval/task_files.hpp>

#include <set>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::eval;
using espalier::test::message_of;

TEST_CASE("tasks: each that ships has a name of its own, metrics, and a source or a renderer",
          "[eval]") {
  std::set<std::string> ids, hashes;
  for (const TaskDefinition& d : shipped_tasks()) {
    CAPTURE(d.id());
    CHECK(ids.insert(d.id()).second);
    CHECK(hashes.insert(d.hash).second);
    CHECK_FALSE(d.metrics.empty());
    CHECK(d.source.hub.empty() == (d.version == "llm-foundry"));
    CHECK_FALSE(d.files.empty());
  }
  CHECK(ids.size() >= 17);
}

TEST_CASE("tasks: the columns tell which version of a task a file is for", "[eval]") {
  test::TemporaryFolder data;
  std::filesystem::create_directory(data / "multiple_choice");
  const char* const kHub =
      R"({"id": "1", "question": "Why?", "choices": {"text": ["so", "no"], "label": ["A", "B"]}, "answerKey": "B"})";
  test::write_bytes(data / "arc_easy.jsonl", kHub);
  for (const char* name : {"arc_easy", "arc:easy", "arc_easy@lm-eval-1.0"}) {
    const TaskData task = load_task(name, data.path());
    CHECK(task.definition.id() == "arc_easy@lm-eval-1.0");
    CHECK(task.definition.source.hub == "allenai/ai2_arc");
    REQUIRE(task.questions.size() == 1);
    CHECK(task.questions[0].contexts == std::vector<std::string>{"Question: Why?\nAnswer:"});
    CHECK(task.questions[0].continuations == std::vector<std::string>{" so", " no"});
    CHECK(task.questions[0].gold == 1);
  }
  CHECK_THAT(message_of<FormatError>([&] { (void)load_task("arc_easy@llm-foundry", data.path()); },
                                     data.path()),
             Catch::StartsWith("arc_easy.jsonl: line 1: arc_easy: prompt needs the column "
                               "\"query\"; the row has id, question, choices, answerKey"));
  std::filesystem::rename(data / "arc_easy.jsonl", data / "multiple_choice/arc_easy.jsonl");
  CHECK(load_task("arc_easy", data.path()).definition.id() == "arc_easy@lm-eval-1.0");
  test::write_bytes(data / "multiple_choice/arc_easy.jsonl",
                    R"({"query": "Question: Why?", "choices": ["so", "no"], "gold": 1})");
  const TaskData foundry = load_task("arc:easy", data.path());
  CHECK(foundry.definition.id() == "arc_easy@llm-foundry");
  CHECK(foundry.questions[0].contexts[0] == "Question: Why?\nAnswer:");
}

TEST_CASE("tasks: a file of one's own is asked as its keys say, never under a benchmark's name",
          "[eval]") {
  test::TemporaryFolder data;
  const char* const kRow = R"({"query": "Q", "choices": ["a", "b"], "gold": 0})";
  test::write_bytes(data / "trees.jsonl", kRow);
  CHECK(load_task("trees", data.path()).questions[0].contexts[0] == "Q\nAnswer:");
  // Rendered rows of another exporter, whose prompt this is not.
  test::write_bytes(data / "openbook_qa.jsonl", kRow);
  CHECK_THAT(message_of<FormatError>([&] { (void)load_task("openbook_qa", data.path()); }),
             Catch::Contains("openbookqa: prompt needs the column \"question_stem\""));
}

TEST_CASE("tasks: a definition in a file", "[eval]") {
  test::TemporaryFolder data;
  test::write_bytes(data / "mine.json", R"({
    "name": "animals", "version": "1", "prompt": "{sound} says the", "delimiter": " ",
    "choices": ["{left}", "{right}"], "gold": "{right_is_right}", "metrics": ["acc"]})");
  test::write_bytes(data / "animals.jsonl",
                    R"({"sound": "Moo", "left": "dog", "right": "cow", "right_is_right": true})");
  const TaskData task = load_task((data / "mine.json").string(), data.path());
  CHECK(task.definition.id() == "animals@1");
  CHECK(task.questions[0].solved() == "Moo says the cow");
  for (
      const auto& [broken, why] : std::vector<std::pair<std::string, std::string>>{
          {R"({"name": "x", "version": "1", "prompt": "a", "choices": ["b"], "metrics": ["f1"]})",
           "\"f1\" is no metric"},
          {R"({"name": "x", "version": "1", "prompt": "a", "choices": ["b"], "metrics": [], "shot": 1})",
           "\"shot\" is no key of a task"},
          {R"({"name": "x", "version": "1", "prompt": "a", "choices": "b", "metrics": []})",
           "expected a list of texts, or one column that is a list"},
          {R"({"name": "x", "version": "1", "prompt": "a", "choices": ["b"], "metrics": [],
                "gold": {"find": "{k}", "in": " {labels}"}})",
           "expected a list of texts, or one column that is a list"},
          {R"({"name": "x", "version": "1", "prompt": "a", "choices": ["b"], "metrics": [],
                "truth": "1"})",
           "expected a list of texts, or one column that is a list"},
          {R"({"name": "x", "version": "1", "choices": ["b"], "metrics": []})",
           "\"prompt\" is missing"}}) {
    test::write_bytes(data / "mine.json", broken);
    CHECK_THAT(message_of<FormatError>([&] { (void)read_tasks(data / "mine.json"); }, data.path()),
               Catch::StartsWith("mine.json") && Catch::Contains(why));
  }
}

TEST_CASE("tasks: an unknown name lists the known, missing rows come with their export", "[eval]") {
  test::TemporaryFolder data;
  test::write_bytes(data / "trees.jsonl", "{}");
  CHECK_THAT(message_of<UsageError>([&] { (void)load_task("gsm9k", data.path()); }, data.path()),
             Catch::StartsWith("task gsm9k: no such task; there are mmlu_pro, loss, arc_easy, ") &&
                 Catch::Contains(": trees, and definitions, NAME.json"));
  CHECK(message_of<IoError>([&] { (void)load_task("arc:challenge", data.path()); }, data.path()) ==
        "arc_challenge.jsonl: no such file, the rows of task arc_challenge; it has the columns of "
        "allenai/ai2_arc, which this makes: python -c \"import datasets; "
        "datasets.load_dataset('allenai/ai2_arc', 'ARC-Challenge', "
        "split='test').to_json('arc_challenge.jsonl')\"");
}

TEST_CASE("tasks: worked examples come from the training rows beside the questions", "[eval]") {
  test::TemporaryFolder data;
  test::write_bytes(data / "trees.jsonl", R"({"query": "Q", "choices": ["a", "b"], "gold": 0})");
  CHECK(load_task("trees", data.path()).shots.empty());
  test::write_bytes(data / "trees_train.jsonl",
                    R"({"query": "T", "choices": ["c", "d"], "gold": 1})");
  const TaskData task = load_task("trees", data.path());
  REQUIRE(task.shots.size() == 1);
  CHECK(task.shots[0].solved() == "T\nAnswer: d");
}

TEST_CASE("tasks: the page of the format names each that ships, with its version", "[eval]") {
  const std::string page = io::read_text(ESPALIER_TESTS_DIR "/../docs/tasks.md");
  for (const TaskDefinition& d : shipped_tasks()) {
    CHECK_THAT(page, Catch::Contains("`" + d.name + "`"));
    CHECK_THAT(page, Catch::Contains(d.version.substr(d.version.rfind('-') + 1)));
    CHECK_THAT(page, Catch::Contains(d.source.hub));
  }
}
