// SPDX-License-Identifier: Apache-2.0
// fine_tune, analyze and evaluate with --device cuda, in the simulator, against --device cpu: what
// they write is the same to rounding. README.md's first program with D = Cuda.
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <espalier/io/json.hpp>
#include <espalier/io/jsonl.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

const std::string kModel = std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/model";

int run(const fs::path& folder, const std::string& program, const std::string& arguments) {
  const std::string line = "cd '" + folder.string() + "' && '" + ESPALIER_BIN_DIR + "/" + program +
                           "_simulated' " + arguments + " > log.txt 2>&1";
  return std::system(line.c_str());
}

void require_near(double got, double want) {
  REQUIRE(std::abs(got - want) <= 1e-4 * std::abs(want));
}

std::vector<io::Json> lines_of(const fs::path& file) {
  std::vector<io::Json> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    lines.push_back(io::parse_json(line, file.string()));
  return lines;
}

}  // namespace

TEST_CASE("README.md: the first program prints with D = Cuda what it prints with D = Cpu",
          "[cuda][drivers]") {
  const test::TemporaryFolder folder;
  REQUIRE(run(folder.path(), "first_program", "") == 0);
  const auto bin = std::string(ESPALIER_BIN_DIR) + "/00_first_program";
  REQUIRE(std::system(("'" + bin + "' > '" + (folder.path() / "cpu.txt").string() + "'").c_str()) ==
          0);
  const std::string text = test::read_bytes(folder.path() / "log.txt");
  CHECK(text.rfind("token 0 -> expert 1 (0.73) and expert 2 (0.27)\n", 0) == 0);
  CHECK(text == test::read_bytes(folder.path() / "cpu.txt"));
}

TEST_CASE("drivers on the device Cuda: a tiny model is trained, scored and evaluated as on the CPU",
          "[cuda][drivers]") {
  const test::TemporaryFolder folder;
  std::ofstream(folder.path() / "data.jsonl")
      << "{\"text\":\"the cat sat on the mat.\"}\n"
         "{\"text\":\"an expert is chosen for each token.\"}\n"
         "{\"text\":\"what is the answer? the answer is (A).\"}\n";
  for (const std::string dtype : {"f32", "bf16"}) {
    CAPTURE(dtype);
    for (const std::string device : {"cpu", "cuda"}) {
      CAPTURE(device);
      const std::string tuned = device + dtype,
                        common = " --device " + device + " --dtype " + dtype;
      REQUIRE(run(folder.path(), "fine_tune",
                  "--model '" + kModel + "' --data data.jsonl --output " + tuned +
                      " --target q,k,v,o,gate,w1,w2,w3 --lora-r 2 --lora-alpha 4 --lora-dropout 0.1"
                      " --steps 2 --batch-size 2 --lr 1e-2 --aux-loss 0.01 --max-length 24" +
                      common) == 0);
      REQUIRE(run(folder.path(), "analyze",
                  "--model '" + kModel + "' --adapter cpu" + dtype +
                      " --calibration data.jsonl --max-tokens 50 --criteria reap,frequency"
                      " --output scores-" +
                      tuned + common) == 0);
      REQUIRE(run(folder.path(), "evaluate",
                  "--model '" + kModel + "' --adapter cpu" + dtype +
                      " --task loss --text data.jsonl --output results-" + tuned + common) == 0);
    }
    if (dtype == "bf16") continue;  // runs through; its noise may route a token elsewhere
    const auto want = lines_of(folder.path() / "cpuf32" / "train_log.jsonl"),
               got = lines_of(folder.path() / "cudaf32" / "train_log.jsonl");
    REQUIRE(want.size() == 2);
    REQUIRE(got.size() == 2);
    for (std::size_t i = 0; i < want.size(); ++i) {
      for (const char* key : {"loss", "aux_loss", "grad_norm"}) {
        CAPTURE(i, key);
        require_near(got[i].at(key).as_double(), want[i].at(key).as_double());
      }
    }
    const auto scores = [&](const std::string& device) {
      return io::read_json(folder.path() / ("scores-" + device + dtype) / "scores.json");
    };
    const io::Json a = scores("cpu"), b = scores("cuda");
    for (const char* criterion : {"reap", "frequency"}) {
      const auto& layers = a.at("criteria").at(criterion).items();
      for (std::size_t l = 0; l < layers.size(); ++l) {
        for (std::size_t e = 0; e < layers[l].items().size(); ++e) {
          CAPTURE(criterion, l, e);
          require_near(b.at("criteria").at(criterion).items()[l].items()[e].as_double(),
                       layers[l].items()[e].as_double());
        }
      }
    }
  }
}
