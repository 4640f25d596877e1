// SPDX-License-Identifier: Apache-2.0
// Weights that hold NaN or infinity: every program that computes says so in one line and ends with
// exit code 1.
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>

#include <espalier/io/safetensors.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

const fs::path kModel = fs::path(ESPALIER_TESTS_DIR) / "golden/tiny_mixtral/model";

/// A copy of the golden model with `value` in every element of one tensor.
void write_model(const fs::path& folder, const std::string& tensor, float value) {
  fs::remove_all(folder);
  fs::copy(kModel, folder);
  for (const auto& e : fs::directory_iterator(folder)) {
    if (e.path().extension() != ".safetensors") continue;
    std::string bytes = test::read_bytes(e.path());
    const io::SafetensorsFile file(e.path());
    const io::TensorInfo* info = file.find(tensor);
    if (info == nullptr) continue;
    REQUIRE(info->type == "F32");
    for (std::size_t at = 0; at < info->bytes; at += 4) {
      std::memcpy(bytes.data() + info->offset + at, &value, 4);
    }
    test::write_bytes(e.path(), bytes);
    return;
  }
  FAIL("no tensor " << tensor);
}

struct Outcome {
  int code = -1;
  std::string out, err;
};

Outcome run(const test::TemporaryFolder& folder, const std::string& arguments) {
  const std::string out = (folder / "stdout").string(), err = (folder / "stderr").string();
  const std::string command =
      std::string(ESPALIER_BIN_DIR) + "/" + arguments + " --threads 1 >" + out + " 2>" + err;
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, test::read_bytes(out),
          test::read_bytes(err)};
}

}  // namespace

TEST_CASE("programs: NaN and infinity in any weight are told from every result", "[tools]") {
  const test::TemporaryFolder folder;
  const std::string m = (folder / "m").string(), output = (folder / "o").string();
  test::write_bytes(folder / "text.jsonl", "{\"text\": \"a tree is trained and pruned\"}\n");
  test::write_bytes(folder / "ids.jsonl", "{\"ids\": [1, 5, 9, 7]}\n");
  const std::string ids = (folder / "ids.jsonl").string(), text = (folder / "text.jsonl").string();
  for (const std::string tensor :
       {"model.layers.1.block_sparse_moe.gate.weight", "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight", "model.layers.0.self_attn.q_proj.weight",
        "model.norm.weight", "lm_head.weight"}) {
    for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
      write_model(folder / "m", tensor, bad);
      for (const std::string& command :
           {"generate --max-new-tokens 2 --prompt tree --model " + m,
            "generate --max-new-tokens 2 --temperature 1 --prompt tree --model " + m,
            "logits --tokens " + ids + " --output " + output + " --model " + m,
            "evaluate --task loss --text " + text + " --output " + (folder / "e").string() +
                " --model " + m}) {
        fs::remove_all(folder / "e");
        const Outcome o = run(folder, command);
        INFO(tensor << " " << bad << ": " << command << "\n" << o.err);
        CHECK(o.code == 1);
        CHECK_THAT(o.err, Catch::Contains("the model's output is ") &&
                              Catch::Contains("its weights hold NaN or infinity"));
        CHECK_FALSE(fs::exists(folder / "o"));
      }
      const Outcome o = run(folder, "fine_tune --steps 2 --data " + text + " --output " +
                                        (folder / "f").string() + " --model " + m);
      INFO(tensor << " " << bad << "\n" << o.err);
      CHECK(o.code == 1);
      CHECK_THAT(o.err, Catch::Contains("before the first update") &&
                            Catch::Contains("weights or the data") &&
                            !Catch::Contains("Lower the learning rate"));
      fs::remove_all(folder / "f");
    }
  }
}
