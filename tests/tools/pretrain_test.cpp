// SPDX-License-Identifier: Apache-2.0
// pretrain as the demo uses it: texts and an untrained checkpoint in, a checkpoint out.
#include <cstdlib>
#include <cstring>

#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/jsonl.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;

namespace {

int run(const test::TemporaryFolder& folder, const std::string& command) {
  const std::string line = "cd '" + (folder / "").string() + "' && '" + ESPALIER_BIN_DIR + "/'" +
                           command + " > out.txt 2> err.txt";
  return WEXITSTATUS(std::system(line.c_str()));
}

void make_world(const test::TemporaryFolder& folder) {
  REQUIRE(run(folder,
              "make_skills --output skills --pretrain 200 --fine-tune 20 --held-out 20 "
              "--questions 5") == 0);
  REQUIRE(run(folder,
              "make_checkpoint --output untrained --tokenizer skills/tokenizer --layers 2 "
              "--hidden 32 --intermediate 48 --heads 4 --kv-heads 2 --experts 4 "
              "--initializer-range 0.05 --dtype f32") == 0);
}

const std::string kPretrain =
    "pretrain --model untrained --data skills/pretrain.jsonl --steps 12 --batch-size 16 --lr 1e-2 "
    "--warmup 2 --aux-loss 0.01 --output ";

}  // namespace

TEST_CASE("pretrain: every weight changes, the loss falls, the rest is carried", "[tools]") {
  const test::TemporaryFolder folder;
  make_world(folder);
  REQUIRE(run(folder, kPretrain + "trained --eval-data skills/held_out.jsonl") == 0);
  const hub::Checkpoint before(folder / "untrained"), after(folder / "trained");
  REQUIRE(after.names() == before.names());
  for (const std::string& name : before.names()) {
    const AnyTensor a = before.tensor(name), b = after.tensor(name);
    INFO(name);
    REQUIRE(a.size_bytes() == b.size_bytes());
    CHECK(std::memcmp(a.bytes(), b.bytes(), a.size_bytes()) != 0);
  }
  const auto log = io::read_jsonl(folder / "trained/train_log.jsonl");
  REQUIRE(log.size() == 12);
  CHECK(log.back().at("loss").as_double() < 0.8 * log.front().at("loss").as_double());
  CHECK(io::read_text(folder / "trained/tokenizer.json") ==
        io::read_text(folder / "untrained/tokenizer.json"));
  CHECK(std::filesystem::file_size(folder / "trained/loss.png") > 1000);
}

TEST_CASE("pretrain: the same bytes for any number of threads", "[tools]") {
  const test::TemporaryFolder folder;
  make_world(folder);
  REQUIRE(run(folder, kPretrain + "one --threads 1") == 0);
  REQUIRE(run(folder, kPretrain + "three --threads 3") == 0);
  CHECK(io::read_text(folder / "one/model.safetensors") ==
        io::read_text(folder / "three/model.safetensors"));
}

TEST_CASE("pretrain: an existing target is refused and stays as it is", "[tools]") {
  const test::TemporaryFolder folder;
  make_world(folder);
  std::filesystem::create_directory(folder / "trained");
  REQUIRE(run(folder, kPretrain + "trained") == 1);
  CHECK(io::read_text(folder / "err.txt").find("exists already") != std::string::npos);
  CHECK(std::filesystem::is_empty(folder / "trained"));
}
