// SPDX-License-Identifier: Apache-2.0
// Programs that are left alone for a week: whose an output is, what others may do beside it, and
// what happens to the work when nobody reads the messages.
#include <cstdlib>

#include <espalier/io/json.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

const std::string kGolden = std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral";

class World {
 public:
  World() {
    fs::copy(kGolden + "/model", folder_ / "model");
    std::string rows;
    for (int i = 0; i < 9; ++i) {
      rows += "{\"text\": \"tree " + std::to_string(i * i) + " grows, is trained and pruned\"}\n";
    }
    test::write_bytes(folder_ / "text.jsonl", rows);
    test::write_bytes(folder_ / "plan.json",
                      "{\"keep\": [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]}");
  }

  fs::path operator/(const std::string& name) const { return folder_ / name; }

  /// Runs `script` in bash, in the folder; @PROGRAM stands for its path. Returns the exit code.
  int run(std::string script) {
    for (std::size_t at; (at = script.find('@')) != std::string::npos;) {
      script.replace(at, 1, std::string(ESPALIER_BIN_DIR) + "/");
    }
    test::write_bytes(folder_ / "script", "cd '" + folder_.path().string() + "'\n" + script + "\n");
    const int status =
        std::system(("bash " + (folder_ / "script").string() + " >" +
                     (folder_ / "stdout").string() + " 2>" + (folder_ / "stderr").string())
                        .c_str());
    printed = test::read_bytes(folder_ / "stdout");
    said = test::read_bytes(folder_ / "stderr");
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

  /// Names of what lies in a folder, sorted.
  std::vector<std::string> names(const std::string& folder) const {
    std::vector<std::string> found;
    for (const auto& e : fs::recursive_directory_iterator(folder_ / folder)) {
      found.push_back(e.path().lexically_relative(folder_ / folder).string());
    }
    std::sort(found.begin(), found.end());
    return found;
  }

  std::string printed, said;

 private:
  test::TemporaryFolder folder_;
};

const std::string kPrune = "@prune --model model --plan plan.json --output ";
const std::string kFineTune =
    "@fine_tune --threads 1 --model model --data text.jsonl --max-length 24 --steps 9 --lr 1e-2 ";
const std::string kLoss = "@evaluate --threads 1 --model model --task loss --text text.jsonl ";

}  // namespace

TEST_CASE("outputs: one inside the model, or around it, is refused before anything is written",
          "[tools][outputs]") {
  World w;
  fs::copy(kGolden + "/adapter", w / "adapter");
  const std::vector<std::string> before = w.names("model");
  for (const std::string& command :
       {kPrune, kFineTune + "--output ", kLoss + "--output ",
        std::string("@merge_adapter --model model --adapter adapter --output "),
        std::string("@pretrain --model model --data text.jsonl --steps 1 --output "),
        std::string("@analyze --model model --calibration text.jsonl --output ")}) {
    CHECK(w.run(command + "model/sub") == 2);
    CHECK_THAT(w.said, Catch::Contains("the output model/sub lies within the input folder model"));
    CHECK(w.names("model") == before);
  }
  CHECK(w.run(kFineTune + "--output .") == 2);
  CHECK_THAT(w.said, Catch::Contains("the output . contains the input folder model"));
}

TEST_CASE("outputs: a model in the hub's cache, all links, is pruned and verified",
          "[tools][outputs]") {
  World w;
  const fs::path snapshot = w / "hub/snapshots/abc";
  fs::create_directories(snapshot);
  fs::create_directories(w / "hub/blobs");
  int number = 0;
  for (const auto& file : fs::directory_iterator(w / "model")) {
    const std::string blob = "b" + std::to_string(number++);
    fs::copy(file.path(), w / "hub/blobs" / blob);
    fs::create_symlink("../../blobs/" + blob, snapshot / file.path().filename());
  }
  REQUIRE(w.run("@prune --model hub/snapshots/abc --plan plan.json --output pruned") == 0);
  CHECK(w.run("@verify --base hub/snapshots/abc --pruned pruned") == 0);
}

TEST_CASE("outputs: of two containers with one output one writes it, the other is refused",
          "[tools][outputs]") {
  World w;
  const std::string container = "unshare --pid --fork --mount-proc ";
  if (w.run(container + "true") != 0) {
    WARN("skipped: this user may not start a process namespace");
    return;
  }
  REQUIRE(w.run(kPrune + "whole") == 0);
  const std::vector<std::string> expected = w.names("whole");
  for (int trial = 0; trial < 6; ++trial) {
    REQUIRE(w.run("rm -rf same; " + container + kPrune + "same & a=$!; " + container + kPrune +
                  "same; b=$?; wait $a; echo $(($? + b))") == 0);
    CHECK(w.printed.substr(w.printed.find_last_of('\n', w.printed.size() - 2) + 1) == "1\n");
    CHECK_THAT(w.said, Catch::Contains("same: another run is writing it (process 1 on ") ||
                           Catch::Contains("same: exists already"));
    CHECK(w.names("same") == expected);
    CHECK(w.run("ls -d same.*") != 0);
  }
}

TEST_CASE("outputs: messages that nobody can read cost no work", "[tools][outputs]") {
  World w;
  const std::string evaluate = kLoss + "--output ";
  for (const std::string& streams : {std::string("2>/dev/full"), std::string("2>&-"),
                                     std::string("<&- >&- 2>&-"), std::string(">/dev/null 2>&-")}) {
    CAPTURE(streams);
    w.run("rm -rf a b c");
    CHECK(w.run(kFineTune + "--output a " + streams) == 0);
    CHECK(fs::exists(w / "a/adapter_model.safetensors"));
    CHECK(w.run(evaluate + "b " + streams) == 0);
    CHECK(w.run(evaluate + "b --resume") == 0);  // nothing was printed into the journal
    CHECK(w.run(kPrune + "c " + streams) == 0);
    CHECK(fs::exists(w / "c/config.json"));
  }
  w.run("rm -rf a");
  // The reader of the messages has gone before the first one.
  CHECK(w.run("{ sleep 0.2; " + kFineTune +
              "--output a; echo $? >code; } 2>&1 | true; sleep 0.1; "
              "while [ ! -s code ]; do sleep 0.1; done") == 0);
  CHECK(fs::exists(w / "a/adapter_model.safetensors"));
}

TEST_CASE("outputs: a full disk behind standard output is a failure, the result is there",
          "[tools][outputs]") {
  World w;
  CHECK(w.run(kPrune + "c >/dev/full") == 1);
  CHECK_THAT(w.said, Catch::Contains("No space left on device"));
  CHECK(fs::exists(w / "c/config.json"));
}

TEST_CASE("outputs: what a killed run left is removed and named by the next", "[tools][outputs]") {
  World w;
  // The process is stopped in the middle by a limit on processor time that it cannot reach, so a
  // leftover is made by hand: a folder of this boot whose lock is free.
  std::string boot = io::read_text("/proc/sys/kernel/random/boot_id").substr(0, 8);
  fs::create_directory(w / ("out.tmp-" + boot + "-abcdefghij"));
  test::write_bytes(w / "out.lock", "process 1 on elsewhere since then\n");
  fs::create_directory(w / "out.tmp-4711");
  REQUIRE(w.run(kPrune + "out") == 0);
  CHECK_THAT(w.said, Catch::Contains("prune: removed out.tmp-" + boot +
                                     "-abcdefghij, which a run that was killed had left"));
  CHECK_THAT(w.said, Catch::Contains("warning: out.tmp-4711 (0 B) is an unfinished output") &&
                         Catch::Contains("--remove-leftovers removes it"));
  CHECK(w.run("ls -d out.*") == 0);
  CHECK(w.printed == "out.tmp-4711\n");
  CHECK(w.run(kPrune + "out --remove-leftovers") == 1);
  CHECK(w.run("ls -d out.*") != 0);
}

TEST_CASE("outputs: what comes through a pipe is hashed as it was read", "[tools][outputs]") {
  World w;
  const std::string analyze = "@analyze --model model --criteria frequency --calibration ";
  REQUIRE(w.run(analyze + "text.jsonl --output a && " + analyze + "<(cat text.jsonl) --output b") ==
          0);
  CHECK(test::read_bytes(w / "a/scores.json") == test::read_bytes(w / "b/scores.json"));
  const std::string prune = "@prune --model model --criterion frequency --keep 4 --scores ";
  REQUIRE(w.run(prune + "a/scores.json --output p && " + prune +
                "<(cat a/scores.json) --output q") == 0);
  CHECK(test::read_bytes(w / "p/pruning_plan.json") == test::read_bytes(w / "q/pruning_plan.json"));
}

TEST_CASE("outputs: a pipe in the place of a file of the model is refused, and not waited for",
          "[tools][outputs]") {
  World w;
  for (const char* file : {"model-00001-of-00002.safetensors", "config.json", "tokenizer.json"}) {
    CAPTURE(file);
    const std::string path = "model/" + std::string(file);
    REQUIRE(w.run("mv " + path + " kept && mkfifo " + path) == 0);
    CHECK(w.run("timeout 20 " + std::string("@generate --model model --prompt a")) == 1);
    CHECK_THAT(w.said, Catch::Contains(path + ": is a named pipe, expected a file"));
    REQUIRE(w.run("rm " + path + " && mv kept " + path) == 0);
  }
}
