// SPDX-License-Identifier: Apache-2.0
// Rows as data sets are published: which file, which columns.
#include <espalier/eval/task_files.hpp>

#include <map>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::eval;

namespace {

std::vector<std::string> dumped(const std::vector<std::filesystem::path>& files) {
  std::vector<std::string> rows;
  for_each_row(files, [&](const io::Json& row) { rows.push_back(io::dump(row)); });
  return rows;
}

/// A folder with MMLU's CSV as it is published: one file for each subject and split.
void write_mmlu(const test::TemporaryFolder& data, const std::string& header) {
  for (const char* split : {"dev", "test"}) {
    std::filesystem::create_directories(data / "mmlu" / split);
    for (const char* subject : {"anatomy", "us_foreign_policy"}) {
      std::string text = header;
      for (int i = 0; i < 3; ++i) {
        text += std::string("\"") + split + ", " + std::to_string(i) + "\",a,b,c,d," +
                (header.empty() ? "C" : "2") + "\n";
      }
      test::write_bytes(data / "mmlu" / split / (std::string(subject) + "_" + split + ".csv"),
                        text);
    }
  }
}

}  // namespace

TEST_CASE("rows: JSON lines, a JSON list and CSV hold the same", "[eval]") {
  test::TemporaryFolder data;
  test::write_bytes(data / "a.jsonl", "{\"question\": \"x\", \"answer\": \"y\"}\n");
  test::write_bytes(data / "b.json", "[{\"question\": \"x\", \"answer\": \"y\"}]");
  test::write_bytes(data / "c.csv", "question,answer\nx,y\n");
  for (const char* name : {"a", "b", "c"}) {
    const auto files = find_rows(data.path(), {name}, {""});
    REQUIRE(files.size() == 1);
    CHECK(dumped(files) == std::vector<std::string>{R"({"question":"x","answer":"y","file":")" +
                                                    std::string(name) + "\"}"});
  }
  test::write_bytes(data / "d.json", "[3]");
  CHECK_THAT(test::message_of<FormatError>([&] { (void)dumped({data / "d.json"}); }, data.path()),
             Catch::StartsWith("d.json: ") && Catch::Contains("expected an object"));
  test::write_bytes(data / "e.csv", "x,y\n1,2\n");
  CHECK_THAT(test::message_of<FormatError>([&] { (void)dumped({data / "e.csv"}); }, data.path()),
             Catch::StartsWith("e.csv: line 1: neither a header"));
}

TEST_CASE("rows: a split is part of the name, or a folder", "[eval]") {
  test::TemporaryFolder data;
  CHECK(find_rows(data.path(), {"gsm8k"}, {"", "test"}).empty());
  std::filesystem::create_directories(data / "gsm8k");
  test::write_bytes(data / "gsm8k/test.jsonl", "{}");
  CHECK(find_rows(data.path(), {"gsm8k"}, {"", "test"}).at(0) == data / "gsm8k/test.jsonl");
  test::write_bytes(data / "gsm8k_test.jsonl", "{}");
  CHECK(find_rows(data.path(), {"gsm8k"}, {"", "test"}).at(0) == data / "gsm8k_test.jsonl");
  test::write_bytes(data / "gsm8k.jsonl", "{}");
  CHECK(find_rows(data.path(), {"gsm8k"}, {"", "test"}).at(0) == data / "gsm8k.jsonl");
  CHECK(find_rows(data.path(), {"gsm8k"}, {"train"}).empty());
}

TEST_CASE("rows: MMLU's CSV, with and without a header, are asked as lm-evaluation-harness asks",
          "[eval]") {
  for (const char* header : {"question,choice0,choice1,choice2,choice3,answer\n", ""}) {
    test::TemporaryFolder data;
    write_mmlu(data, header);
    const TaskData mmlu = load_task("mmlu", data.path());
    CHECK(mmlu.definition.id() == "mmlu@lm-eval-1.0");
    REQUIRE(mmlu.questions.size() == 6);
    CHECK(mmlu.shots.size() == 6);
    const Question& q = mmlu.questions[3];
    CHECK(q.part == "us_foreign_policy");
    CHECK(
        q.description ==
        "The following are multiple choice questions (with answers) about us foreign policy.\n\n");
    CHECK(q.contexts[0] == "test, 0\nA. a\nB. b\nC. c\nD. d\nAnswer:");
    CHECK(q.continuations == std::vector<std::string>{" A", " B", " C", " D"});
    CHECK(q.gold == 2);
  }
}

TEST_CASE("rows: MMLU at hand loads, every subject in one group", "[eval][.shared][shared]") {
  const TaskData mmlu = load_task("mmlu", ESPALIER_SHARED_DATA);
  CHECK(mmlu.questions.size() == 14042);
  CHECK(mmlu.shots.size() == 285);
  std::map<std::string, int> groups;
  for (const PartGroup& g : mmlu.definition.groups) {
    for (const std::string& part : g.parts) ++groups[part];
  }
  CHECK(groups.size() == 57);
  for (const Question& q : mmlu.questions) CHECK(groups.at(q.part) == 1);
}
