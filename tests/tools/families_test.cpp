// SPDX-License-Identifier: Apache-2.0
// make_checkpoint writes every family, and the programs that compute take what it wrote; upcycle
// keeps what a dense model computes.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/jsonl.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

class Workshop {
 public:
  Workshop() {
    test::write_bytes(folder_ / "ids.jsonl", "{\"ids\": [1, 5, 9, 7, 30, 2]}\n{\"ids\": [3]}\n");
    test::write_bytes(folder_ / "text.jsonl", "{\"text\": \"a tree is trained and pruned\"}\n");
  }
  fs::path operator/(std::string_view name) const { return folder_ / name; }

  /// In the folder, with one thread; `said` is what it wrote to standard error.
  int run(const std::string& command) {
    const std::string line = "cd '" + (folder_ / "").string() + "' && '" + ESPALIER_BIN_DIR + "/'" +
                             command + " --threads 1 > out.txt 2> err.txt";
    const int status = std::system(line.c_str());
    said = test::read_bytes(folder_ / "err.txt");
    return WEXITSTATUS(status);
  }
  int make(const std::string& name, const std::string& family, const std::string& more = {}) {
    return run("make_checkpoint --output " + name + " --family " + family +
               " --layers 2 --hidden 32 --intermediate 24 --heads 4 --kv-heads 2 "
               "--initializer-range 0.2 --dtype f32 " +
               (more.find("--tokenizer") == more.npos ? "--vocab 64 " : "") + more);
  }
  std::vector<float> logits(const std::string& model) {
    fs::remove(folder_ / "logits.safetensors");
    const int code = run("logits --model " + model +
                         " --tokens ids.jsonl --output "
                         "logits.safetensors");
    INFO(said);
    REQUIRE(code == 0);
    const io::SafetensorsFile file(folder_ / "logits.safetensors");
    std::vector<float> values;
    for (const char* name : {"logits.0", "logits.1"}) {
      const Tensor<float> t(file.tensor(name));
      values.insert(values.end(), t.data(), t.data() + t.numel());
    }
    return values;
  }

  std::string said;

 private:
  test::TemporaryFolder folder_;
};

std::vector<std::string> family_names() {
  std::vector<std::string> list;
  std::istringstream names(computed_families());
  for (std::string name; std::getline(names >> std::ws, name, ',');) list.push_back(name);
  return list;
}

}  // namespace

TEST_CASE("make_checkpoint: every family with a forward pass is written and computes",
          "[tools][families]") {
  Workshop w;
  REQUIRE(family_names().size() >= 12);
  for (const std::string& family : family_names()) {
    INFO(family);
    const int code = w.make(family, family);
    INFO(w.said);
    REQUIRE(code == 0);
    const hub::Checkpoint checkpoint(w / family);
    CHECK(checkpoint.family().model_type == family);
    CHECK(checkpoint.computable());
    CHECK(checkpoint.unused_tensors().empty());
    CHECK(checkpoint.mixture().experts == (checkpoint.family().expert_keys.empty() ? 0 : 8));
    const std::vector<float> logits = w.logits(family);
    CHECK(logits.size() == 7 * 64);
    for (const float z : logits) REQUIRE(std::isfinite(z));
    CHECK(logits[0] != logits[1]);
  }
}

TEST_CASE("make_checkpoint: dense layers and shared experts as asked for", "[tools][families]") {
  Workshop w;
  REQUIRE(w.make("deep", "deepseek_v3", "--dense-layers 0 --shared-intermediate 48") == 0);
  const DecoderConfig deep = hub::Checkpoint(w / "deep").config();
  CHECK(deep.has_mixture(0));
  CHECK(deep.mixture.shared_width == 48);
  REQUIRE(w.make("qwen", "qwen2_moe", "--dense-layers 1 --shared-intermediate 40 --experts 4") ==
          0);
  const DecoderConfig qwen = hub::Checkpoint(w / "qwen").config();
  CHECK_FALSE(qwen.has_mixture(0));
  CHECK(qwen.has_mixture(1));
  CHECK(qwen.mixture.shared_width == 40);
  CHECK(qwen.mixture.experts == 4);
}

TEST_CASE("make_checkpoint: what a family has not is wrong usage", "[tools][families]") {
  Workshop w;
  const std::pair<const char*, const char*> wrong[] = {{"phimoe", ""},
                                                       {"gpt5", ""},
                                                       {"llama", "--experts 4"},
                                                       {"mixtral", "--dense-layers 1"},
                                                       {"mixtral", "--shared-intermediate 24"},
                                                       {"deepseek_v3", "--shared-intermediate 25"},
                                                       {"qwen3_moe", "--top-k 9"}};
  for (const auto& [family, more] : wrong) {
    INFO(family << " " << more);
    CHECK(w.make("wrong", family, more) == 2);
    CHECK(std::count(w.said.begin(), w.said.end(), '\n') == 1);
    CHECK_FALSE(fs::exists(w / "wrong"));
  }
}

TEST_CASE("upcycle: without noise the mixture computes what the dense model does",
          "[tools][families]") {
  Workshop w;
  const std::pair<const char*, const char*> pairs[] = {
      {"llama", "mixtral"}, {"mistral", "mixtral"}, {"qwen3", "qwen3_moe"}};
  for (const auto& [dense, mixture] : pairs) {
    INFO(dense);
    const std::string name = dense, window = name == "mistral" ? "--sliding-window 3" : "";
    REQUIRE(w.make(name, name, window) == 0);
    const std::vector<float> want = w.logits(name);
    REQUIRE(w.run("upcycle --model " + name + " --output " + name + "-moe --experts 4 --top-k 2") ==
            0);
    const hub::Checkpoint made(w / (name + "-moe"));
    CHECK(made.family().model_type == mixture);
    CHECK(made.mixture().experts == 4);
    CHECK(made.config().mixture.router.renormalize);
    const double tolerance = test::tol(DType::f32, 32);
    const auto m = test::compare(w.logits(name + "-moe"), want, 4 * tolerance, tolerance);
    INFO(m);
    CHECK(m.count == 0);
    REQUIRE(w.run("upcycle --model " + name + " --output " + name +
                  "-noise --experts 4 --noise "
                  "0.1") == 0);
    CHECK(test::compare(w.logits(name + "-noise"), want, 1e-3, 1e-3).count > 0);
  }
}

TEST_CASE("upcycle: what it cannot take is refused in a line", "[tools][families]") {
  Workshop w;
  REQUIRE(w.make("qwen2", "qwen2") == 0);
  REQUIRE(w.make("olmo", "mixtral") == 0);
  const std::pair<const char*, const char*> wrong[] = {{"qwen2", "this qwen2 has biases"},
                                                       {"olmo", "has experts already"}};
  for (const auto& [model, reason] : wrong) {
    CHECK(w.run(std::string("upcycle --output moe --model ") + model) == 1);
    CHECK_THAT(w.said, Catch::StartsWith("upcycle: ") && Catch::Contains(reason));
    CHECK(std::count(w.said.begin(), w.said.end(), '\n') == 1);
    CHECK_FALSE(fs::exists(w / "moe"));
  }
}

TEST_CASE("programs: dense models and mixtures of any family are trained and continued",
          "[tools][families]") {
  Workshop w;
  const std::string tokenizer =
      std::string("--tokenizer ") + ESPALIER_TESTS_DIR + "/golden/tiny_mixtral/model";
  for (const std::string family : {"llama", "qwen3_moe", "deepseek_v3", "gpt_oss"}) {
    INFO(family);
    REQUIRE(w.make(family, family, tokenizer) == 0);
    const std::string run = family + "-run";
    int code = w.run("fine_tune --model " + family + " --data text.jsonl --target all --steps 3 " +
                     "--lr 1e-2 --max-length 24 --output " + run);
    INFO(w.said);
    REQUIRE(code == 0);
    const auto log = io::read_jsonl(w / (run + "/train_log.jsonl"));
    CHECK(log.back().at("loss").as_double() < log.front().at("loss").as_double());
    const io::Json state = io::read_json(w / (run + "/trainer_state.json"));
    CHECK(io::dump(state).find("\"target\":[\"all\"]") != std::string::npos);
    code = w.run("generate --model " + family + " --adapter " + run +
                 " --prompt tree --max-new-tokens 3");
    INFO(w.said);
    REQUIRE(code == 0);
  }
  // All weights: dense, a selection bias that is carried, fused experts that are refused.
  const std::string pretrain = "pretrain --data text.jsonl --steps 1 --max-length 24 --model ";
  CHECK(w.run(pretrain + "llama --output llama-all") == 0);
  CHECK(w.run(pretrain + "deepseek_v3 --output deepseek-all") == 0);
  CHECK(hub::Checkpoint(w / "deepseek-all").computable());
  CHECK(w.run(pretrain + "gpt_oss --output gpt-all") == 1);
  CHECK_THAT(w.said, Catch::Contains("a gpt_oss keeps all experts of a layer in one tensor"));
  CHECK(w.run("fine_tune --model deepseek_v3 --data text.jsonl --aux-loss 0.1 --output no") == 1);
  CHECK_THAT(w.said, Catch::Contains("a deepseek_v3 has a sigmoid"));
}

TEST_CASE("prune: scores of other weights are warned of, those of its own are not") {
  Workshop w;
  REQUIRE(w.make("own", "mixtral", "--seed 1") == 0);
  REQUIRE(w.make("other", "mixtral", "--seed 2") == 0);
  REQUIRE(w.run("analyze --model own --criteria router_norm --output scores") == 0);
  const std::string prune =
      "prune --scores scores/scores.json --criterion router_norm --keep 3 --dry-run --model ";
  REQUIRE(w.run(prune + "own --output a") == 0);
  CHECK_THAT(w.said, !Catch::Contains("warning"));
  REQUIRE(w.run(prune + "other --output b") == 0);
  CHECK_THAT(w.said, Catch::Contains("was made for a model with other weights than other"));
}
