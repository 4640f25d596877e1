// SPDX-License-Identifier: Apache-2.0
// Checkpoints: the shard rule of transformers, round trips, and stories that do not fit together.
#include <algorithm>

#include <espalier/hub/checkpoint.hpp>
#include <espalier/io/checkpoint_writer.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "support/tiny_config.hpp"

using namespace espalier;
using namespace espalier::io;
using espalier::test::message_of;
namespace fs = std::filesystem;

namespace {

DecoderConfig tiny() {
  return test::tiny_config(
      {.hidden = 8, .width = 6, .layers = 2, .heads = 2, .kv_heads = 1, .experts = 3, .vocab = 10});
}

/// Every element of tensor number i is i. `extra`: a tensor [3] that the model does not use.
void write_checkpoint(const fs::path& folder, const DecoderConfig& c, std::size_t max_shard_bytes,
                      const std::string& extra = {}) {
  fs::create_directories(folder);
  write_text(folder / "config.json", dump(hub::config_json(c, DType::f32), 2));
  std::vector<TensorSpec> tensors = hub::tensor_specs(c, DType::f32);
  if (!extra.empty()) tensors.push_back({extra, "F32", {3}, 12});
  CheckpointWriter out(folder, tensors, max_shard_bytes);
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    out.write(tensors[i].name, Tensor<float>(shape_of(tensors[i], "test"), static_cast<float>(i)));
  }
  out.commit();
}

std::string refusal(const fs::path& folder) {
  return message_of<Error>([&] { hub::Checkpoint checkpoint(folder); }, folder);
}
void change_json(const fs::path& path, void (*change)(Json&)) {
  Json j = read_json(path);
  change(j);
  test::write_bytes(path, dump(j));
}

}  // namespace

TEST_CASE("Mixtral 8x7B falls into the 19 shards that its authors published") {
  const std::vector<TensorSpec> tensors = hub::tensor_specs(DecoderConfig(), DType::bf16);
  CHECK(tensors.size() == 995);
  const std::vector<ShardSpec> shards = split_into_shards(tensors, parse_bytes("5GB"));
  REQUIRE(shards.size() == 19);
  std::size_t total = 0;
  for (const ShardSpec& shard : shards) total += shard.bytes;
  CHECK(total == 93405585408u);
  CHECK(shards.front().file == "model-00001-of-00019.safetensors");
  CHECK(shards.back().file == "model-00019-of-00019.safetensors");
  CHECK(shards.back().tensors.back().name == "lm_head.weight");
  CHECK(split_into_shards(tensors, parse_bytes("10GB")).size() == 10);
  CHECK(split_into_shards(tensors, parse_bytes("50GB")).size() == 2);
}

TEST_CASE("Tensors that the model does not use are listed, not refused") {
  test::TemporaryFolder folder;
  const std::string bias = "model.layers.0.block_sparse_moe.gate.e_score_correction_bias";
  write_checkpoint(folder / "m", tiny(), 1 << 20, bias);
  const hub::Checkpoint checkpoint(folder / "m");
  CHECK(checkpoint.computable());
  CHECK(checkpoint.unused_tensors() == std::vector<std::string>{bias});
  CHECK(checkpoint.warnings() ==
        std::vector<std::string>{"tensor " + bias + " of a router is not used"});
  write_checkpoint(folder / "n", tiny(), 1 << 20, "notes");
  CHECK(hub::Checkpoint(folder / "n").unused_tensors() == std::vector<std::string>{"notes"});
}

TEST_CASE("A tensor larger than a shard gets one of its own, in front") {
  const auto spec = [](const char* name, std::int64_t n) {
    return make_spec(name, DType::u8, {n});
  };
  const auto shards =
      split_into_shards({spec("a", 4), spec("b", 20), spec("c", 5), spec("d", 2)}, 10);
  REQUIRE(shards.size() == 3);
  CHECK(shards[0].tensors[0].name == "b");
  CHECK(shards[1].tensors.size() == 2);
  CHECK(shards[1].tensors[1].name == "c");
  CHECK(shards[2].bytes == 2);
  CHECK(split_into_shards({spec("a", 10)}, 10)[0].file == "model.safetensors");
}

TEST_CASE("Sizes are read with decimal and binary units") {
  CHECK(parse_bytes("5GB") == 5'000'000'000u);
  CHECK(parse_bytes("500MB") == 500'000'000u);
  CHECK(parse_bytes("64KB") == 64'000u);
  CHECK(parse_bytes("2GiB") == std::size_t{2} << 30);
  CHECK(parse_bytes("3 MiB") == 3u << 20);
  CHECK(parse_bytes("1kib") == 1024u);
  CHECK(parse_bytes("1.5gb") == 1'500'000'000u);
  CHECK(parse_bytes("123") == 123u);
  CHECK(parse_bytes("7B") == 7u);
  for (const char* text : {"", "GB", "5XB", "-1GB", "5GBB", "nan", "1e3", "5,5GB", "0", "inf"}) {
    CAPTURE(text);
    CHECK_THAT(message_of<UsageError>([&] { (void)parse_bytes(text); }),
               Catch::StartsWith("size \""));
  }
  CHECK_THROWS_AS(parse_bytes("99999999999TB"), UsageError);
}

TEST_CASE("Sharded or not, through links or not, a checkpoint gives its tensors back") {
  test::TemporaryFolder folder;
  const DecoderConfig c = tiny();
  const std::vector<TensorSpec> tensors = hub::tensor_specs(c, DType::f32);
  write_checkpoint(folder / "one", c, kDefaultShardBytes);
  write_checkpoint(folder / "many", c, 1000);
  fs::create_directory(folder / "links");
  for (const auto& entry : fs::directory_iterator(folder / "many")) {
    fs::create_symlink(entry.path(), folder / "links" / entry.path().filename());
  }
  for (const char* name : {"one", "many", "links"}) {
    const hub::Checkpoint k(folder / name);
    CHECK(k.sharded() == (std::string(name) != "one"));
    CHECK(k.names().size() == tensors.size());
    CHECK(k.config().mixture.experts == 3);
    CHECK(k.dtype() == DType::f32);
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const Tensor<float> t(k.tensor(tensors[i].name));
      CHECK(t[t.numel() - 1] == static_cast<float>(i));
      CHECK(k.shard_of(tensors[i].name).content.find(tensors[i].name) != nullptr);
      bytes += t.size_bytes();
    }
    CHECK(k.total_bytes() == bytes);
    CHECK(k.find("none") == nullptr);
    if (k.sharded()) {
      CHECK(read_json(folder / name / kIndexFile).at("metadata").at("total_size").as_uint() ==
            bytes);
    }
  }
}

TEST_CASE("A checkpoint whose parts disagree is refused by name") {
  test::TemporaryFolder folder;
  const fs::path dir = folder / "k";
  write_checkpoint(dir, tiny(), 1000);
  const std::string first = hub::Checkpoint(dir).shards()[0].file;
  const auto broken = [&](const char* file, void (*change)(Json&)) {
    const std::string before = test::read_bytes(dir / file);
    change_json(dir / file, change);
    const std::string said = refusal(dir);
    test::write_bytes(dir / file, before);
    return said;
  };
  CHECK(broken("config.json", [](Json& j) { j["vocab_size"] = 11; }) ==
        first +
            ": tensor \"model.embed_tokens.weight\" is [10, 8], expected [11, 8] by config.json");
  CHECK_THAT(broken("config.json", [](Json& j) { j["num_hidden_layers"] = 3; }),
             Catch::EndsWith(": tensor \"model.layers.2.self_attn.q_proj.weight\" is missing; "
                             "config.json (mixtral, 3 layers, 3 experts) calls for it"));
  CHECK_THAT(broken("config.json", [](Json& j) { j["num_hidden_layers"] = 1; }),
             Catch::EndsWith("does not belong to the model that config.json describes (mixtral, 1 "
                             "layers, 3 experts)"));
  CHECK(
      broken(kIndexFile, [](Json& j) { j["weight_map"]["model.norm.weight"] = "../x"; }) ==
      "model.safetensors.index.json: at \"weight_map\".\"model.norm.weight\": \"../x\" is not the "
      "name of a file in the checkpoint's folder");
  CHECK(broken(kIndexFile, [](Json& j) { j["weight_map"]["model.norm.weight"] = "absent"; }) ==
        "absent: is missing; the index names this shard for 1 tensors, download it");
  CHECK(broken(kIndexFile, [](Json& j) { j["weight_map"] = Json::object(); }) ==
        "model.safetensors.index.json: \"weight_map\" is empty");
  CHECK_THAT(broken(kIndexFile, [](Json& j) { j["weight_map"].erase("model.norm.weight"); }),
             Catch::EndsWith(": tensor \"model.norm.weight\" is in this shard, but "
                             "model.safetensors.index.json does not say so; download both again"));
  CHECK_THAT(broken(kIndexFile,
                    [](Json& j) {
                      j["weight_map"]["model.norm.weight"] =
                          j["weight_map"]["model.embed_tokens.weight"];
                    }),
             Catch::EndsWith(": tensor \"model.norm.weight\" is not in this shard, though "
                             "model.safetensors.index.json says so; download both again"));
  fs::remove(dir / kIndexFile);
  CHECK_THAT(refusal(dir), Catch::Contains("neither model.safetensors nor"));
  fs::remove(dir / "config.json");
  CHECK(refusal(dir) == "config.json: cannot open: No such file or directory");
  CHECK_THAT(message_of<IoError>([&] { hub::Checkpoint k(folder / "none"); }),
             Catch::Contains("is not a folder"));
}

TEST_CASE("Weights of a type that is not computed with are refused by file and tensor") {
  for (const std::string type : {"F64", "I64", "U8", "F8_E4M3"}) {
    for (const std::size_t bad : {0u, 3u}) {
      test::TemporaryFolder folder;
      const DecoderConfig c = tiny();
      write_text(folder / "config.json", dump(hub::config_json(c, DType::f32), 2));
      std::vector<TensorSpec> tensors = hub::tensor_specs(c, DType::f32);
      tensors[bad].type = type;
      tensors[bad].bytes = checked_bytes(tensors[bad], "test");
      CheckpointWriter out(folder.path(), tensors, 1 << 20);
      for (const ShardSpec& shard : out.shards()) {
        for (const TensorSpec& t : shard.tensors) {
          out.append(t.name, std::string(t.bytes, '\0').data(), t.bytes);
        }
      }
      out.commit();
      const hub::Checkpoint checkpoint(folder.path());
      CHECK_FALSE(checkpoint.computable());
      CHECK(message_of<UnsupportedError>([&] { (void)checkpoint.config(); }, folder.path()) ==
            "model.safetensors: tensor \"" + tensors[bad].name + "\" has dtype " + type +
                "; weights of F32, BF16 and F16 are computed with, others can be inspected, pruned "
                "and verified");
      CHECK(checkpoint.mixture().experts == 3);
    }
  }
}

TEST_CASE("A checkpoint that needs more room than the disk has is refused before writing") {
  test::TemporaryFolder folder;
  const TensorSpec huge = make_spec("w", DType::u8, {std::int64_t{1} << 60});
  CHECK_THAT(message_of<IoError>([&] { CheckpointWriter w(folder.path(), {huge}, 1000); }),
             Catch::Contains(": needs 1152921504606846976 bytes, ") &&
                 Catch::EndsWith("free some space or choose another folder"));
  CHECK(fs::is_empty(folder.path()));
}
