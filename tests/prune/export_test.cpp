// SPDX-License-Identifier: Apache-2.0
// Exports on a checkpoint whose experts lie across shards: every byte, the index, the config, the
// files beside, links, and what must never happen.
#include <algorithm>

#include <espalier/prune/export.hpp>
#include <espalier/prune/verify.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "synthetic_checkpoint.hpp"

using namespace espalier;
using namespace espalier::prune;
using espalier::test::expert_prefix;
using espalier::test::message_of;
using espalier::test::moe_prefix;
using espalier::test::read_bytes;
using espalier::test::write_bytes;
namespace fs = std::filesystem;

namespace {

const Plan kPlan{{{0, 2, 5}, {1, 3, 4}, {3, 4, 5}}, io::Json::object()};

Export run_export(const hub::Checkpoint& base, const Plan& plan, const fs::path& output,
                  ShardLayout layout = ShardLayout::standard, std::size_t max_shard_bytes = 9000) {
  const Export what = plan_export(base, plan, layout, max_shard_bytes, "plan");
  write_export(base, plan, what, output, {});
  return what;
}

std::string raw(const hub::Checkpoint& c, const std::string& name) {
  const io::TensorInfo& info = c.at(name);
  return read_bytes(c.shard_of(name).content.path()).substr(info.offset, info.bytes);
}

/// Independent of the code under test: names and rows are put together here once more.
void require_pruned(const hub::Checkpoint& base, const hub::Checkpoint& pruned, const Plan& plan) {
  std::size_t expected = 0;
  const std::size_t row = static_cast<std::size_t>(base.config().hidden_size) * 2;
  for (const std::string& name : base.names()) {
    if (name.find("block_sparse_moe") == std::string::npos) {
      REQUIRE(raw(pruned, name) == raw(base, name));
      ++expected;
    }
  }
  for (std::size_t l = 0; l < plan.keep.size(); ++l) {
    const std::string moe = "model.layers." + std::to_string(l) + ".block_sparse_moe.";
    std::string gate;
    for (std::size_t k = 0; k < plan.keep[l].size(); ++k) {
      const int e = plan.keep[l][k];
      gate += raw(base, moe + "gate.weight").substr(static_cast<std::size_t>(e) * row, row);
      for (const char* part : {".w1.weight", ".w2.weight", ".w3.weight"}) {
        REQUIRE(raw(pruned, moe + "experts." + std::to_string(k) + part) ==
                raw(base, moe + "experts." + std::to_string(e) + part));
        ++expected;
      }
    }
    REQUIRE(raw(pruned, moe + "gate.weight") == gate);
    ++expected;
  }
  REQUIRE(pruned.names().size() == expected);
}

std::uint64_t index_total(const fs::path& folder) {
  return io::read_json(folder / io::kIndexFile).at("metadata").at("total_size").as_uint();
}

}  // namespace

TEST_CASE("The synthetic checkpoint is as awkward as the real one") {
  test::TemporaryFolder folder;
  test::write_synthetic(folder / "base", test::synthetic_config());
  const hub::Checkpoint base(folder / "base");
  int across = 0, gate_apart = 0;
  for (std::size_t l = 0; l < 3; ++l) {
    const std::string& gate_file = base.shard_of(moe_prefix(l) + "gate.weight").file;
    bool apart = false;
    for (int e = 0; e < 6; ++e) {
      const std::string& first = base.shard_of(expert_prefix(l, e) + "w1.weight").file;
      across += first != base.shard_of(expert_prefix(l, e) + "w3.weight").file;
      apart |= first != gate_file;
    }
    gate_apart += apart;
  }
  CHECK(base.shards().size() >= 7);
  CHECK(across >= 2);
  CHECK(gate_apart >= 2);
}

TEST_CASE("export: both layouts hold every kept byte where it belongs, and an exact index") {
  test::TemporaryFolder folder;
  test::write_synthetic(folder / "base", test::synthetic_config());
  const hub::Checkpoint base(folder / "base");
  run_export(base, kPlan, folder / "standard");
  run_export(base, kPlan, folder / "consolidated", ShardLayout::consolidated);
  const hub::Checkpoint standard(folder / "standard"), consolidated(folder / "consolidated");
  for (const hub::Checkpoint* pruned : {&standard, &consolidated}) {
    require_pruned(base, *pruned, kPlan);
    CHECK(pruned->config().mixture.experts == 3);
    CHECK(index_total(pruned->folder()) == pruned->total_bytes());
    for (const auto& shard : pruned->shards()) {
      CHECK(shard.content.metadata() == io::Metadata{{"format", "pt"}});
    }
    CHECK(read_plan(pruned->folder() / kPlanFile).keep == kPlan.keep);
  }
  CHECK(verify_same(standard, consolidated, {}).problems.empty());
  CHECK(read_bytes(folder / "standard/pruning_plan.json") ==
        read_bytes(folder / "consolidated/pruning_plan.json"));
  for (const std::string& name : base.names()) {
    const auto kept = pruned_spec(base, base.at(name), kPlan);
    if (kept) CHECK(standard.shard_of(kept->name).file == base.shard_of(name).file);
  }
}

TEST_CASE("export: consolidated shards are those of a model that was saved with fewer experts") {
  test::TemporaryFolder folder;
  test::write_synthetic(folder / "base", test::synthetic_config());
  const hub::Checkpoint base(folder / "base");
  run_export(base, kPlan, folder / "out", ShardLayout::consolidated, 9000);
  DecoderConfig small = test::synthetic_config();
  small.mixture.experts = 3;
  const auto want = io::split_into_shards(hub::tensor_specs(small, DType::bf16), 9000);
  const hub::Checkpoint out(folder / "out");
  REQUIRE(out.shards().size() == want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    CHECK(out.shards()[i].file == want[i].file);
    REQUIRE(out.shards()[i].content.tensors().size() == want[i].tensors.size());
    for (std::size_t t = 0; t < want[i].tensors.size(); ++t) {
      CHECK(out.shards()[i].content.tensors()[t].name == want[i].tensors[t].name);
    }
  }
  run_export(base, kPlan, folder / "one", ShardLayout::consolidated, 1 << 30);
  CHECK(fs::exists(folder / "one/model.safetensors"));
  CHECK_FALSE(fs::exists(folder / "one/model.safetensors.index.json"));
  CHECK(verify_same(out, hub::Checkpoint(folder / "one"), {}).problems.empty());
}

TEST_CASE("export: a shard left empty is dropped, a lone model.safetensors stays alone") {
  test::TemporaryFolder folder;
  test::write_synthetic(folder / "base", test::synthetic_config(), DType::bf16, 1000);
  const hub::Checkpoint base(folder / "base");
  run_export(base, kPlan, folder / "out");
  const hub::Checkpoint out(folder / "out");
  std::size_t empty = 0;
  for (const auto& shard : base.shards()) {
    const auto& tensors = shard.content.tensors();
    empty += std::none_of(tensors.begin(), tensors.end(),
                          [&](const auto& t) { return pruned_spec(base, t, kPlan).has_value(); });
  }
  CHECK(empty >= 20);
  CHECK(out.shards().size() == base.shards().size() - empty);
  require_pruned(base, out, kPlan);
  for (const auto& shard : out.shards()) CHECK(fs::exists(folder / "base" / shard.file));

  test::write_synthetic(folder / "single", test::synthetic_config(), DType::bf16, 1 << 30);
  const hub::Checkpoint single(folder / "single");
  run_export(single, kPlan, folder / "single-out");
  CHECK(fs::exists(folder / "single-out/model.safetensors"));
  CHECK_FALSE(fs::exists(folder / "single-out/model.safetensors.index.json"));
  require_pruned(single, hub::Checkpoint(folder / "single-out"), kPlan);
}

TEST_CASE("export: config.json keeps every character but one number") {
  test::TemporaryFolder folder;
  test::write_synthetic(folder / "base", test::synthetic_config());
  std::string text = read_bytes(folder / "base/config.json");
  text.insert(1,
              "\n  \"note\": \"\\\"num_local_experts\\\": 6, \\u00e9\",\n  \"nested\": "
              "{\"num_local_experts\": 6},\t\"big\": 1000000000000000019884624838656,\n"
              "  \"eps\": 1.00e-05,");
  write_bytes(folder / "base/config.json", text);
  run_export(hub::Checkpoint(folder / "base"), kPlan, folder / "out");
  const std::string key = "\n  \"num_local_experts\": ";
  const std::size_t at = text.find(key);
  REQUIRE(at != std::string::npos);
  std::string want = text;
  want.replace(at + key.size(), 1, "3");
  CHECK(read_bytes(folder / "out/config.json") == want);

  CHECK(with_integer("{\"a\":12,\"b\":[1]}", "a", 3, "c") == "{\"a\":3,\"b\":[1]}");
  CHECK(with_integer("{\"b\":\"a\", \"a\" : 12}", "a", 3, "c") == "{\"b\":\"a\", \"a\" : 3}");
  const std::string escaped = with_integer("{\"\\u0061\": 12, \"b\": 1}", "a", 3, "c");
  CHECK(io::dump(io::parse_json(escaped, "c")) == "{\"a\":3,\"b\":1}");
  CHECK(message_of<FormatError>([] { (void)with_integer("{}", "a", 3, "c"); }) ==
        "c: \"a\" is missing");
}

TEST_CASE("export: files beside the weights come along, weights in other formats do not") {
  test::TemporaryFolder folder;
  test::write_synthetic(folder / "base", test::synthetic_config());
  fs::create_directories(folder / "base/sub/deeper");
  const std::vector<std::string> carried = {
      "generation_config.json", "tokenizer.json", "chat_template.jinja", ".hidden", "sub/one.txt",
      "sub/deeper/.two"};
  for (const std::string& name : carried) {
    write_bytes(folder / "base" / name,
                name == "generation_config.json" ? "{}" : "text of " + name);
  }
  write_bytes(folder / "base/pytorch_model.bin", "old weights");
  write_bytes(folder / "base/stray.safetensors", "not in the index");
  fs::create_symlink(folder / "base/tokenizer.json", folder / "base/link.json");
  run_export(hub::Checkpoint(folder / "base"), kPlan, folder / "out");
  for (const std::string& name : carried) {
    CHECK(read_bytes(folder / "out" / name) == read_bytes(folder / "base" / name));
  }
  CHECK(read_bytes(folder / "out/link.json") == "text of tokenizer.json");
  CHECK_FALSE(fs::exists(folder / "out/pytorch_model.bin"));
  CHECK_FALSE(fs::exists(folder / "out/stray.safetensors"));
}

TEST_CASE("export: shards that are symbolic links work, and become files") {
  test::TemporaryFolder folder;
  test::write_synthetic(folder / "blobs", test::synthetic_config());
  fs::create_directory(folder / "base");
  for (const auto& entry : fs::directory_iterator(folder / "blobs")) {
    fs::create_symlink("../blobs" / entry.path().filename(),
                       folder / "base" / entry.path().filename());
  }
  const hub::Checkpoint base(folder / "base");
  run_export(base, kPlan, folder / "out");
  require_pruned(base, hub::Checkpoint(folder / "out"), kPlan);
  for (const auto& entry : fs::directory_iterator(folder / "out")) {
    CHECK_FALSE(entry.is_symlink());
  }
}

TEST_CASE("export: pruning twice is pruning once; the older plan does not come along") {
  test::TemporaryFolder folder;
  test::write_synthetic(folder / "base", test::synthetic_config());
  const hub::Checkpoint base(folder / "base");
  run_export(base, {{{0, 2, 3, 5}, {0, 1, 3, 4}, {1, 3, 4, 5}}, {}}, folder / "four");
  const hub::Checkpoint four(folder / "four");
  run_export(four, {{{0, 1, 3}, {1, 2, 3}, {1, 2, 3}}, {}}, folder / "three");
  run_export(base, kPlan, folder / "direct");
  const hub::Checkpoint three(folder / "three");
  CHECK(verify_same(three, hub::Checkpoint(folder / "direct"), {}).problems.empty());
  CHECK(read_plan(folder / "three/pruning_plan.json").keep[0] == std::vector<int>{0, 1, 3});
}

TEST_CASE("export: an existing target, a plan that does not fit, a stop half way leave nothing") {
  test::TemporaryFolder folder;
  test::write_synthetic(folder / "base", test::synthetic_config());
  const hub::Checkpoint base(folder / "base");
  const auto entries = [&] {
    return std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator());
  };
  fs::create_directory(folder / "out");
  CHECK(message_of<IoError>([&] { run_export(base, kPlan, folder / "out"); }, folder.path()) ==
        "out: exists already; remove it or choose another output folder");
  const Plan uneven{{{0, 1}, {0, 1, 2}, {0, 1}}, {}};
  CHECK_THAT(message_of<FormatError>([&] { run_export(base, uneven, folder / "new"); }),
             Catch::StartsWith("plan: layer 1 keeps 3 experts, layer 0 keeps 2;"));
  const Export what = plan_export(base, kPlan, ShardLayout::standard, 0, "plan");
  std::size_t pieces = 0;
  CHECK(message_of<Error>([&] {
          write_export(base, kPlan, what, folder / "new", [&](std::size_t) {
            if (++pieces == 20) throw Error("stop");
          });
        }) == "stop");
  CHECK(pieces == 20);
  CHECK(entries() == 2);  // base and the empty out
}

TEST_CASE("export: what is announced is what is written") {
  test::TemporaryFolder folder;
  test::write_synthetic(folder / "base", test::synthetic_config());
  const hub::Checkpoint base(folder / "base");
  std::size_t written = 0;
  const Export what = plan_export(base, kPlan, ShardLayout::standard, 0, "plan");
  write_export(base, kPlan, what, folder / "out", [&](std::size_t bytes) { written += bytes; });
  const hub::Checkpoint out(folder / "out");
  CHECK(what.bytes == out.total_bytes());
  CHECK(written == out.total_bytes());
  CHECK(what.base_bytes == base.total_bytes());
  CHECK(what.dropped_tensors == 27);
  REQUIRE(what.shards.size() == out.shards().size());
  for (std::size_t i = 0; i < what.shards.size(); ++i) {
    CHECK(what.shards[i].file == out.shards()[i].file);
    CHECK(what.shards[i].tensors.size() == out.shards()[i].content.tensors().size());
  }
}

TEST_CASE("verify: proves a good export and names what is wrong with a bad one") {
  test::TemporaryFolder folder;
  test::write_synthetic(folder / "base", test::synthetic_config());
  write_bytes(folder / "base/tokenizer.json", "words");
  const hub::Checkpoint base(folder / "base");
  run_export(base, kPlan, folder / "out");
  const auto problems = [&](const Plan& plan) {
    return verify_export(base, hub::Checkpoint(folder / "out"), plan, "plan", {}).problems;
  };
  CHECK(problems(kPlan).empty());
  Plan other = kPlan;
  other.keep[1] = {1, 2, 4};
  const auto wrong_plan = problems(other);
  CHECK(wrong_plan.size() == 4);  // three matrices and the router
  CHECK(wrong_plan[0].find("has other bytes") != std::string::npos);

  for (const auto& entry : fs::directory_iterator(folder / "out")) {
    if (entry.path().extension() != ".safetensors") continue;
    std::string bytes = read_bytes(entry.path());
    bytes.back() ^= 1;
    write_bytes(entry.path(), bytes);
    break;
  }
  CHECK(problems(kPlan).size() == 1);
  fs::remove(folder / "out/tokenizer.json");
  CHECK(problems(kPlan).size() == 2);
  CHECK(problems(kPlan).back() == "tokenizer.json is missing");
}

TEST_CASE("verify: an index with a wrong total and a config with another value are found") {
  test::TemporaryFolder folder;
  test::write_synthetic(folder / "base", test::synthetic_config());
  const hub::Checkpoint base(folder / "base");
  run_export(base, kPlan, folder / "out");
  const std::uint64_t total = index_total(folder / "out");
  io::Json index = io::read_json(folder / "out" / io::kIndexFile);
  index["metadata"]["total_size"] = 2 * total;  // as if the weights had four bytes
  write_bytes(folder / "out" / io::kIndexFile, io::dump(index));
  io::Json config = io::read_json(folder / "out/config.json");
  config["rope_theta"] = 5.0;
  config["extra"] = true;
  write_bytes(folder / "out/config.json", io::dump(config));
  const auto v = verify_export(base, hub::Checkpoint(folder / "out"), kPlan, "plan", {});
  CHECK(v.problems ==
        std::vector<std::string>{"config.json: \"rope_theta\" is 5.0, expected 10000.0",
                                 "config.json: \"extra\" is not in the base",
                                 "model.safetensors.index.json: total_size is " +
                                     std::to_string(2 * total) + ", the tensors have " +
                                     std::to_string(total) + " bytes"});
}
