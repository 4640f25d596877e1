// SPDX-License-Identifier: Apache-2.0
// Pruned checkpoints of every mixture that transformers knows, live: it opens them without a
// missing or unexpected tensor and computes what it computes with its own tensors cut; both layouts
// are proven; what we compute is what we compute on the masked base, bit for bit. And checkpoints
// laid out as quantized releases are: their kept bytes.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include <espalier/hub/checkpoint.hpp>
#include <espalier/prune/plan.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

void shell(const std::string& command, const fs::path& scratch) {
  const std::string log = scratch / "log.txt";
  const int status = std::system(("( " + command + " ) >'" + log + "' 2>&1").c_str());
  INFO(command << "\n" << test::read_bytes(log));
  REQUIRE(status == 0);
}
void ours(const std::string& command, const fs::path& scratch) {
  shell(std::string(ESPALIER_BIN_DIR) + "/" + command, scratch);
}
void python(const std::string& command, const fs::path& scratch) {
  const char* interpreter = std::getenv("ESPALIER_PEERS_PYTHON");
  REQUIRE(interpreter != nullptr);
  shell(std::string(interpreter) + " " + ESPALIER_TESTS_DIR + "/" + command, scratch);
}

/// Of every group (of three, where there are none) one expert goes, another one in each layer.
prune::Plan plan_for(const hub::Mixture& m) {
  const std::int64_t period = m.groups > 1 ? m.experts / m.groups : 4;
  prune::Plan plan;
  for (std::size_t l = 0; l < m.sparse.size(); ++l) {
    plan.keep.emplace_back();
    for (std::int64_t e = 0; m.has(l) && e < m.experts; ++e) {
      if ((e + static_cast<std::int64_t>(l)) % period != 1) {
        plan.keep.back().push_back(static_cast<int>(e));
      }
    }
  }
  return plan;
}

/// Prunes `scratch`/base to `standard` and `consolidated`; both are proven.
hub::Mixture prune_both(const fs::path& scratch) {
  const hub::Checkpoint base(scratch / "base");
  const prune::Plan plan = plan_for(base.mixture());
  test::write_bytes(scratch / "plan.json", prune::plan_json(plan));
  const std::string options = "prune --model " + (scratch / "base").string() + " --plan " +
                              (scratch / "plan.json").string() + " --output ";
  ours("inspect " + (scratch / "base").string(), scratch);
  ours(options + (scratch / "standard").string(), scratch);
  ours(options + (scratch / "consolidated").string() +
           " --layout consolidated --max-shard-size 40KB",
       scratch);
  ours("verify --base " + (scratch / "base").string() + " --pruned " +
           (scratch / "standard").string() + " --other " + (scratch / "consolidated").string(),
       scratch);
  CHECK(hub::Checkpoint(scratch / "standard").mixture().experts == prune::kept_count(plan));
  CHECK(prune::kept_count(plan) < base.mixture().experts);
  return base.mixture();
}

void judged_by_transformers(const fs::path& scratch) {
  test::write_bytes(scratch / "tokens.jsonl",
                    "{\"ids\": [1, 5, 60, 42, 17, 63, 3, 3, 20, 8, 33]}\n{\"ids\": [7, 4, 56]}\n");
  python("interop/families.py pruned --base " + (scratch / "base").string() + " --pruned " +
             (scratch / "standard").string() + " --plan " + (scratch / "plan.json").string() +
             " --tokens " + (scratch / "tokens.jsonl").string(),
         scratch);
}

std::vector<std::string> mixtures() {
  std::vector<std::string> names;
  const io::Json all =
      io::read_json(std::string(ESPALIER_TESTS_DIR) + "/golden/families/tensors.json");
  for (const io::Json::Member& m : all.members()) {
    const bool known = find_family(m.value.at("model_type").as_string()) != nullptr;
    if (!m.value.at("expert_count_key").is_null() && known) names.push_back(m.key);
  }
  return names;
}

}  // namespace

TEST_CASE("interop: transformers opens and computes a pruned checkpoint of every mixture",
          "[.python][interop]") {
  const std::vector<std::string> names = mixtures();
  CHECK(names.size() >= 22);
  for (const std::string& name : names) {
    CAPTURE(name);
    const test::TemporaryFolder folder;
    const fs::path scratch = folder.path();
    python("interop/families.py make --family " + name + " --output " + (scratch / "base").string(),
           scratch);
    io::Json config = io::read_json(scratch / "base/config.json");
    if (name == "deepseek_v2") {  // groups of two: with one left of each, two groups hold two
      config["num_experts_per_tok"] = 2;
      test::write_bytes(scratch / "base/config.json", io::dump(config, 2));
    }
    prune_both(scratch);
    judged_by_transformers(scratch);
    if (!hub::Checkpoint(scratch / "base").computable()) continue;
    const std::string tokens = " --tokens " + (scratch / "tokens.jsonl").string() + " --output ";
    ours("logits --model " + (scratch / "standard").string() + tokens +
             (scratch / "pruned.safetensors").string(),
         scratch);
    ours("logits --model " + (scratch / "base").string() + " --mask-experts " +
             (scratch / "plan.json").string() + tokens + (scratch / "masked.safetensors").string(),
         scratch);
    CHECK(test::read_bytes(scratch / "pruned.safetensors") ==
          test::read_bytes(scratch / "masked.safetensors"));
  }
}

TEST_CASE("interop: quantized checkpoints keep their bytes, and open where transformers can",
          "[.python][interop]") {
  for (const std::string kind : {"fp8_block", "fp8_block_v3", "mxfp4", "packed4", "gptq"}) {
    for (const bool exceptions : {true, false}) {
      // Blocks of 128 and matrices left as they are do not go together in its loader; the 4-bit
      // ones need packages that may be absent.
      const bool opens = kind == "mxfp4" || (kind.starts_with("fp8") && !exceptions);
      if (!exceptions && !opens) continue;
      CAPTURE(kind, exceptions);
      const test::TemporaryFolder folder;
      const fs::path scratch = folder.path();
      python("golden/family_models.py make-quantized --kind " + kind + " --output " +
                 (scratch / "base").string() + (exceptions ? "" : " --no-exceptions"),
             scratch);
      prune_both(scratch);
      if (opens) judged_by_transformers(scratch);
    }
  }
}
