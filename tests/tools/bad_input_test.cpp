// SPDX-License-Identifier: Apache-2.0
// Every program on input that is missing, cut off, misshapen or malformed, and on a full disk: one
// line that names the culprit, exit code 1, and nothing that looks like a result.
#include <cstdlib>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

const fs::path kGolden = fs::path(ESPALIER_TESTS_DIR) / "golden" / "tiny_mixtral";

// A program and a command line that works; @MODEL, @OUT and the like stand for paths.
struct Program {
  const char* name;
  const char* arguments;
  const char* output;  // what a good run leaves, "" for nothing
};

const std::vector<Program>& programs() {
  static const std::vector<Program> all = {
      {"fine_tune", "--model @MODEL --data @TEXT --output @OUT --steps 1 --max-length 16",
       "adapter_model.safetensors"},
      {"pretrain", "--model @MODEL --data @TEXT --output @OUT --steps 1 --max-length 16",
       "config.json"},
      {"analyze", "--model @MODEL --calibration @TEXT --criteria frequency,reap --output @OUT",
       "scores.json"},
      {"prune", "--model @MODEL --plan @PLAN --output @OUT", "config.json"},
      {"evaluate", "--model @MODEL --task loss --text @TEXT --output @OUT", "run.json"},
      {"generate", "--model @MODEL --prompt tree --max-new-tokens 2", ""},
      {"inspect", "@MODEL", ""},
      {"logits", "--model @MODEL --tokens @IDS --output @OUT", ""},
      {"merge_adapter", "--model @MODEL --adapter @ADAPTER --output @OUT", "config.json"},
      {"verify", "--base @MODEL --pruned @PRUNED", ""},
  };
  return all;
}

class World {
 public:
  World() {
    fs::copy(kGolden / "model", folder_ / "model");
    fs::copy(kGolden / "adapter", folder_ / "adapter");
    test::write_bytes(folder_ / "text.jsonl", "{\"text\": \"a tree is trained and pruned\"}\n");
    test::write_bytes(folder_ / "ids.jsonl", "{\"ids\": [1, 5, 9, 7]}\n");
    test::write_bytes(folder_ / "plan.json",
                      "{\"keep\": [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]}");
    REQUIRE(run("prune", "--model @MODEL --plan @PLAN --output @PRUNED") == 0);
  }

  fs::path operator/(std::string_view name) const { return folder_ / name; }

  int run(const std::string& program, std::string arguments, const std::string& before = "") {
    const std::pair<const char*, const char*> places[] = {
        {"@MODEL", "model"},    {"@TEXT", "text.jsonl"}, {"@IDS", "ids.jsonl"},
        {"@PLAN", "plan.json"}, {"@ADAPTER", "adapter"}, {"@PRUNED", "pruned"},
        {"@OUT", "out"}};
    for (const auto& [mark, name] : places) {
      for (std::size_t at; (at = arguments.find(mark)) != std::string::npos;) {
        arguments.replace(at, std::string(mark).size(), (folder_ / name).string());
      }
    }
    command = program + " " + arguments;
    // Standard error goes through a pipe, so that a limit on the size of files does not silence it.
    const std::string code_file = (folder_ / "code").string();
    const std::string script = "{ (" + before + std::string(ESPALIER_BIN_DIR) + "/" + program +
                               " --threads 1 " + arguments + ") 2>&1 >/dev/null; echo $? >" +
                               code_file + "; } | cat >" + (folder_ / "stderr").string();
    if (std::system(script.c_str()) != 0) return -1;
    said = test::read_bytes(folder_ / "stderr");
    return std::atoi(test::read_bytes(code_file).c_str());
  }

  /// Runs a program that must fail because of `culprit`.
  void require_refused(const Program& p, const std::string& culprit,
                       const std::string& before = "") {
    fs::remove_all(folder_ / "out");
    const int code = run(p.name, p.arguments, before);
    INFO(command << "\n" << said);
    REQUIRE(code == 1);
    const std::string line = last_line();
    REQUIRE(line.rfind(std::string(p.name) + ": ", 0) == 0);
    REQUIRE(line.find(culprit) != std::string::npos);
    if (*p.output) {
      REQUIRE(!fs::exists(folder_ / "out" / p.output));
    } else {
      REQUIRE(!fs::exists(folder_ / "out"));
    }
  }

  std::string last_line() const {
    const std::size_t end = said.find_last_not_of('\n');
    if (end == std::string::npos) return {};
    const std::size_t before = said.find_last_of("\n\r", end);
    return said.substr(before + 1, end - before);
  }

  std::string said, command;

 private:
  test::TemporaryFolder folder_;
};

bool uses(const Program& p, const char* mark) {
  return std::string(p.arguments).find(mark) != std::string::npos;
}

void cut_in_half(const fs::path& file) {
  fs::resize_file(file, fs::file_size(file) / 2);
}

void replace_in(const fs::path& file, const std::string& from, const std::string& to) {
  std::string text = test::read_bytes(file);
  const std::size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  test::write_bytes(file, text.replace(at, from.size(), to));
}

}  // namespace

TEST_CASE("programs: the commands of these tests work on good input", "[tools][bad_input]") {
  World w;
  for (const Program& p : programs()) {
    fs::remove_all(w / "out");
    const int code = w.run(p.name, p.arguments);
    INFO(w.command << "\n" << w.said);
    REQUIRE(code == 0);
    if (*p.output) REQUIRE(fs::exists(w / "out" / p.output));
  }
}

TEST_CASE("programs: a missing model is named", "[tools][bad_input]") {
  World w;
  fs::remove_all(w / "model");
  for (const Program& p : programs()) w.require_refused(p, "model");
}

TEST_CASE("programs: a truncated shard is named", "[tools][bad_input]") {
  World w;
  cut_in_half(w / "model/model-00002-of-00002.safetensors");
  for (const Program& p : programs()) {
    w.require_refused(p, "model-00002-of-00002.safetensors");
  }
}

TEST_CASE("programs: a tensor of the wrong shape is named", "[tools][bad_input]") {
  World w;
  replace_in(w / "model/config.json", "\"intermediate_size\": 48", "\"intermediate_size\": 44");
  for (const Program& p : programs()) w.require_refused(p, "w1");
}

TEST_CASE("programs: a malformed line is named with its file and number", "[tools][bad_input]") {
  World w;
  const std::string bad = "{\"text\": \"good\", \"ids\": [1]}\n\n{\"text\": \"torn\n";
  test::write_bytes(w / "text.jsonl", bad);
  test::write_bytes(w / "ids.jsonl", bad);
  for (const Program& p : programs()) {
    if (uses(p, "@TEXT")) w.require_refused(p, "text.jsonl: line 3");
    if (uses(p, "@IDS")) w.require_refused(p, "ids.jsonl: line 3");
  }
}

TEST_CASE("programs: a missing data file is named", "[tools][bad_input]") {
  World w;
  fs::remove(w / "text.jsonl");
  fs::remove(w / "ids.jsonl");
  fs::remove(w / "plan.json");
  for (const Program& p : programs()) {
    if (uses(p, "@TEXT")) w.require_refused(p, "text.jsonl");
    if (uses(p, "@IDS")) w.require_refused(p, "ids.jsonl");
    if (uses(p, "@PLAN")) w.require_refused(p, "plan.json");
  }
}

TEST_CASE("programs: ids outside the vocabulary and unknown plan ids are named",
          "[tools][bad_input]") {
  World w;
  test::write_bytes(w / "ids.jsonl", "{\"ids\": [1, 4000]}\n");
  const Program logits{"logits", "--model @MODEL --tokens @IDS --output @OUT", ""};
  w.require_refused(logits, "id 4000");
  test::write_bytes(w / "ids.jsonl", "{\"ids\": [1, 4]}\n");
  test::write_bytes(w / "plan.json", "{\"keep\": [[0, 1], [3, 8]]}");
  const Program masked{"logits", "--model @MODEL --tokens @IDS --mask-experts @PLAN --output @OUT",
                       ""};
  const Program prune{"prune", "--model @MODEL --plan @PLAN --output @OUT", "config.json"};
  for (const Program& p : {masked, prune}) w.require_refused(p, "layer 1: expert id 8");
  test::write_bytes(w / "plan.json", "{\"keep\": [[0, 1], [3, 7]], \"drop\": []}");
  for (const Program& p : {masked, prune}) w.require_refused(p, "unknown key \"drop\"");
}

TEST_CASE("programs: a damaged adapter is named", "[tools][bad_input]") {
  World w;
  cut_in_half(w / "adapter/adapter_model.safetensors");
  const Program adapted[] = {
      {"generate", "--model @MODEL --adapter @ADAPTER --prompt a --max-new-tokens 1", ""},
      {"logits", "--model @MODEL --adapter @ADAPTER --tokens @IDS --output @OUT", ""},
      {"analyze", "--model @MODEL --adapter @ADAPTER --criteria router_delta --output @OUT",
       "scores.json"},
      {"evaluate", "--model @MODEL --adapter @ADAPTER --task loss --text @TEXT --output @OUT",
       "run.json"},
      {"merge_adapter", "--model @MODEL --adapter @ADAPTER --output @OUT", "config.json"},
      {"fine_tune", "--model @MODEL --adapter @ADAPTER --data @TEXT --output @OUT --steps 1",
       "adapter_model.safetensors"}};
  for (const Program& p : adapted) w.require_refused(p, "adapter_model.safetensors");
}

TEST_CASE("logits: an output over an input is refused, and the input stays", "[tools][bad_input]") {
  World w;
  fs::create_directories(w / "links");
  fs::create_symlink(w / "ids.jsonl", w / "links/x");
  fs::create_hard_link(w / "adapter/adapter_model.safetensors", w / "links/y");
  const std::string shard = "model/model-00001-of-00002.safetensors";
  const std::pair<std::string, std::string> cases[] = {
      {"ids.jsonl", "ids.jsonl"},
      {"links/x", "ids.jsonl"},
      {"links/y", "adapter/adapter_model.safetensors"},
      {"plan.json", "plan.json"},
      {"model/config.json", "model/config.json"},
      {shard, shard}};
  for (const auto& [output, input] : cases) {
    const std::string before = test::read_bytes(w / input);
    const int code = w.run("logits",
                           "--model @MODEL --adapter @ADAPTER --tokens @IDS --mask-experts @PLAN "
                           "--output " +
                               (w / output).string());
    INFO(w.command << "\n" << w.said);
    CHECK(code == 2);
    CHECK_THAT(w.last_line(), Catch::Contains("which is read; choose another --output"));
    CHECK(test::read_bytes(w / input) == before);
  }
}

TEST_CASE("inspect: forecasts of any batch are not negative", "[tools][bad_input]") {
  World w;
  const std::string out = (w / "report.json").string();
  CHECK(w.run("inspect", "@MODEL --tokens 9223372036854775807 --json") == 2);
  const std::string command = std::string(ESPALIER_BIN_DIR) + "/inspect " + (w / "model").string() +
                              " --tokens 1073741824 --lora-r 65536 --json >" + out;
  REQUIRE(std::system(command.c_str()) == 0);
  const std::string text = test::read_bytes(out);
  CHECK_THAT(text,
             Catch::Contains("memory_bytes") && !Catch::Contains(":-") && !Catch::Contains(": -"));
}

TEST_CASE("programs: a dense checkpoint where a mixture is needed is named with its family",
          "[tools][bad_input]") {
  World w;
  REQUIRE(w.run("make_checkpoint",
                "--output @OUT --family llama --layers 2 --hidden 32 --intermediate 48 --heads 4 "
                "--tokenizer @MODEL") == 0);
  fs::remove_all(w / "model");
  fs::rename(w / "out", w / "model");
  const Program needing[] = {
      {"logits", "--model @MODEL --tokens @IDS --mask-experts @PLAN --output @OUT", ""},
      {"fine_tune", "--model @MODEL --data @TEXT --output @OUT --steps 1 --aux-loss 0.01",
       "adapter_model.safetensors"},
      {"pretrain", "--model @MODEL --data @TEXT --output @OUT --steps 1 --aux-loss 0.01",
       "config.json"},
      {"analyze", "--model @MODEL --calibration @TEXT --criteria frequency --output @OUT",
       "scores.json"},
      {"prune", "--model @MODEL --plan @PLAN --output @OUT", "config.json"}};
  for (const Program& p : needing) w.require_refused(p, "is a dense llama checkpoint");
  for (const Program& p : programs()) {
    const std::string name = p.name;
    if (name != "fine_tune" && name != "pretrain" && name != "evaluate" && name != "generate" &&
        name != "inspect" && name != "logits") {
      continue;
    }
    fs::remove_all(w / "out");
    const int code = w.run(name, p.arguments);
    INFO(w.command << "\n" << w.said);
    CHECK(code == 0);
  }
}

TEST_CASE("programs: a family without a forward pass is named where one is needed",
          "[tools][bad_input]") {
  World w;
  replace_in(w / "model/config.json", "\"model_type\": \"mixtral\"", "\"model_type\": \"phimoe\"");
  for (const Program& p : programs()) {
    const std::string name = p.name;
    if (name == "merge_adapter" || name == "verify") continue;  // add bytes, compare bytes
    if (name == "prune" || name == "inspect") {
      fs::remove_all(w / "out");
      const int code = w.run(name, p.arguments);
      INFO(w.command << "\n" << w.said);
      CHECK(code == 0);
    } else {
      w.require_refused(p, "\"phimoe\" can be inspected, pruned and verified");
    }
  }
}

TEST_CASE("programs: a target that the model does not have is wrong usage", "[tools][bad_input]") {
  World w;
  const std::string rest = " --model @MODEL --data @TEXT --output @OUT --steps 1 --max-length 16";
  for (const std::string target : {"w4", "q,shared_router", "kv_a"}) {
    CHECK(w.run("fine_tune", "--target " + target + rest) == 2);
    CHECK_THAT(w.last_line(),
               Catch::Contains("unknown target '" + target.substr(target.find(',') + 1) + "'") &&
                   Catch::Contains("w1"));
    CHECK_FALSE(fs::exists(w / "out"));
  }
}

TEST_CASE("programs: a full disk leaves nothing half-written", "[tools][.file_limit]") {
  // A limit on the size of files fails writes as a full disk does, without needing one.
  World w;
  for (const Program& p : programs()) {
    if (!uses(p, "@OUT")) continue;
    const bool small = std::string(p.name) == "evaluate" || std::string(p.name) == "analyze";
    w.require_refused(p, "cannot",
                      std::string("trap '' XFSZ; ulimit -f ") + (small ? "0" : "4") + "; ");
  }
}
