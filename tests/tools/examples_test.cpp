// SPDX-License-Identifier: Apache-2.0
// The numbered examples print what their first comment says, for any number of threads; those that
// take folders leave what the programs leave; README.md quotes the first program as it is.
#include <cstdlib>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

const fs::path kRoot = fs::path(ESPALIER_TESTS_DIR).parent_path();
const fs::path kModel = fs::path(ESPALIER_TESTS_DIR) / "golden/tiny_mixtral/model";

/// What a program of the build writes to standard output.
std::string output_of(const std::string& program, const std::string& arguments) {
  const test::TemporaryFolder folder;
  const fs::path out = folder / "out.txt";
  const std::string command = "'" + std::string(ESPALIER_BIN_DIR) + "/" + program + "' " +
                              arguments + " > '" + out.string() + "'";
  REQUIRE(std::system(command.c_str()) == 0);
  return test::read_bytes(out);
}

/// The first line after "// Expected:".
std::string expected_line(const std::string& source) {
  const std::string mark = "// Expected:\n//   ";
  const std::size_t begin = source.find(mark);
  REQUIRE(begin != std::string::npos);
  const std::size_t first = begin + mark.size();
  return source.substr(first, source.find('\n', first) - first);
}

}  // namespace

TEST_CASE("examples: the numbered ones print what they say, for any number of threads",
          "[examples]") {
  int found = 0;
  for (const auto& entry : fs::directory_iterator(kRoot / "examples")) {
    const std::string name = entry.path().stem().string();
    if (name[0] < '0' || name[0] > '9') continue;
    const std::string source = test::read_bytes(entry.path());
    if (source.find("// Expected:") == std::string::npos) continue;  // has a case of its own
    ++found;
    INFO(name);
    const std::string text = output_of(name, "--threads 1");
    CHECK(text.rfind(expected_line(source) + "\n", 0) == 0);
    CHECK(output_of(name, "--threads 3") == text);
  }
  CHECK(found == 4);
}

TEST_CASE("examples: 04_fine_tune trains the adapter that fine_tune trains", "[examples]") {
  const test::TemporaryFolder folder;
  std::string lines;
  for (int i = 0; i < 6; ++i) {
    lines += "{\"text\": \"tree " + std::to_string(i) + " grows, is trained and pruned\"}\n";
  }
  test::write_bytes(folder / "data.jsonl", lines);
  const std::string data = (folder / "data.jsonl").string();
  const fs::path own = folder / "own", theirs = folder / "theirs";
  const std::string said =
      output_of("04_fine_tune", kModel.string() + " " + data + " " + own.string());
  output_of("fine_tune", "--model " + kModel.string() + " --data " + data + " --output " +
                             theirs.string() +
                             " --target q,v,gate --lora-r 4 --lora-alpha 8 --steps 12"
                             " --batch-size 2 --lr 2e-2 --save-every 0");
  CHECK(test::read_bytes(own / "adapter_model.safetensors") ==
        test::read_bytes(theirs / "adapter_model.safetensors"));
  CHECK_THAT(said, Catch::StartsWith("step  1  loss ") && Catch::Contains("\nstep 12  loss "));
  // It saved where the loss had fallen, which is not at every step; finish() saved the last one.
  int checkpoints = 0;
  for (const auto& entry : fs::directory_iterator(own)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind("checkpoint-", 0) != 0 || name == "checkpoint-12") continue;
    ++checkpoints;
    CHECK_THAT(said, Catch::Contains("saved " + name + "\n"));
  }
  CHECK(checkpoints >= 1);
  CHECK(said.find("saved checkpoint-1\n") == std::string::npos);
}

TEST_CASE("examples: 05_evaluate finds what evaluate finds, and does not ask twice", "[examples]") {
  const test::TemporaryFolder folder;
  fs::create_directories(folder / "data/multiple_choice");
  test::write_bytes(
      folder / "data/multiple_choice/trees.jsonl",
      "{\"query\": \"a tree\", \"choices\": [\"grows\", \"is pruned\"], \"gold\": 0}\n"
      "{\"query\": \"a model\", \"choices\": [\"grows\", \"is pruned\"], \"gold\": 0}\n"
      "{\"query\": \"a vine\", \"choices\": [\"is trained\", \"is\"], \"gold\": 1}\n");
  const std::string data = (folder / "data").string();
  const auto example = [&] {
    return output_of("05_evaluate",
                     kModel.string() + " " + data + " trees " + (folder / "own").string());
  };
  const std::string said = example();
  output_of("evaluate", "--model " + kModel.string() + " --task trees --data " + data +
                            " --output " + (folder / "theirs").string());
  CHECK(test::read_bytes(folder / "own/summary.json") ==
        test::read_bytes(folder / "theirs/summary.json"));
  CHECK_THAT(said, Catch::StartsWith("3 questions answered\ntrees acc ") &&
                       Catch::Contains("\ntrees acc_norm "));
  // The second run has every answer from the journal.
  const std::string again = example();
  CHECK(again == said);
}

TEST_CASE("examples: README.md quotes the first program as it is", "[examples]") {
  const std::string source = test::read_bytes(kRoot / "examples/00_first_program.cpp");
  const std::string program = source.substr(source.find("#include"));
  REQUIRE(program.size() > 500);
  CHECK(test::read_bytes(kRoot / "README.md").find("```cpp\n" + program + "```") !=
        std::string::npos);
}
