// SPDX-License-Identifier: Apache-2.0
// Synthetic checkpoints through the library: what is written is what was asked for, what a family
// cannot have is refused, and tensor_groups says what lies in the folder.
#include <espalier/hub/synthetic.hpp>
#include <espalier/hub/tensor_groups.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace espalier::hub {
namespace {

using test::message_of;

SyntheticCheckpoint small(const std::string& family) {
  return {.family = family, .layers = 3, .hidden = 32, .width = 48, .heads = 4, .vocab = 50};
}

TEST_CASE("A synthetic checkpoint has the sizes that were asked for", "[hub]") {
  const test::TemporaryFolder folder;
  SyntheticCheckpoint c = small("deepseek_v3");
  c.dense_layers = 2;
  c.experts = 4;
  c.shared_width = 96;
  c.dtype = DType::f32;
  c.max_shard_bytes = 40000;
  std::vector<std::size_t> steps;
  std::size_t total = 0;
  const WrittenSizes sizes =
      write_synthetic(folder / "k", c, [&](std::size_t done, std::size_t all) {
        steps.push_back(done);
        total = all;
      });
  const Checkpoint k(folder / "k");
  CHECK(k.config().mixture.experts == 4);
  CHECK(k.config().mixture.shared_width == 96);
  CHECK_FALSE(k.config().has_mixture(1));
  CHECK(k.config().has_mixture(2));
  CHECK(k.dtype() == DType::f32);
  CHECK(sizes.tensors == k.names().size());
  CHECK(sizes.shards == k.shards().size());
  CHECK(sizes.shards > 1);
  CHECK(sizes.bytes == k.total_bytes());
  CHECK(steps.size() == sizes.tensors + 1);
  CHECK(steps.front() == 0);
  CHECK(steps.back() == total);
  const Tensor<float> norm(k.tensor("model.norm.weight"));
  CHECK(norm[0] == 1.0f);
  CHECK(Tensor<float>(k.tensor("lm_head.weight"))[0] != 1.0f);
  CHECK_THROWS_AS(write_synthetic(folder / "k", c), IoError);
}

TEST_CASE("A synthetic checkpoint that a family cannot have is refused", "[hub]") {
  const auto refusal = [](const SyntheticCheckpoint& c) {
    return message_of<UsageError>([&] { (void)synthetic_config(c); });
  };
  CHECK_THAT(refusal(small("gpt5")), Catch::StartsWith("a gpt5 cannot be written; there are "));
  SyntheticCheckpoint c = small("llama");
  c.experts = 4;
  CHECK(refusal(c) == "a llama is dense, it has no experts");
  c = small("mixtral");
  c.dense_layers = 1;
  CHECK(refusal(c) == "every layer of a mixtral has experts, it cannot begin with 1 dense layers");
  c = small("mixtral");
  c.shared_width = 24;
  CHECK(refusal(c) == "a mixtral cannot have a shared expert of width 24, its would be 0 wide");
  c = small("qwen3_moe");
  c.window = 8;
  CHECK(refusal(c) ==
        "the config.json of a qwen3_moe cannot say that layer 0 sees 8 tokens (0: all)");
  CHECK(synthetic_config(small("qwen3_moe")).vocab_size == 50);
}

TEST_CASE("A synthetic checkpoint has no numbers that are not finite", "[hub]") {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  for (const double bad : {nan, inf, -1.0, 1e38}) {
    hub::SyntheticCheckpoint c;
    c.initializer_range = bad;
    CHECK_THROWS_WITH(hub::synthetic_config(c), Catch::StartsWith("initializer range "));
    c = {};
    c.rope_theta = bad;
    CHECK_THROWS_WITH(hub::synthetic_config(c), Catch::StartsWith("rope theta "));
  }
  hub::SyntheticCheckpoint c;
  c.window = -5;
  CHECK_THROWS_WITH(hub::synthetic_config(c), "window -5, expected 0 or more");
}

TEST_CASE("Tensors of one pattern and type are a group", "[hub]") {
  const Checkpoint k(ESPALIER_TESTS_DIR "/golden/tiny_mixtral/model");
  const std::vector<TensorGroup> groups = tensor_groups(k);
  REQUIRE(groups.size() == 13);
  CHECK(groups.front().pattern == "model.embed_tokens.weight");
  CHECK(groups.front().shape == "[128, 32]");
  std::int64_t tensors = 0, experts = 0;
  std::size_t bytes = 0;
  for (const TensorGroup& g : groups) {
    tensors += g.count;
    bytes += g.bytes;
    if (g.pattern != "model.layers.*.block_sparse_moe.experts.*.w1.weight") continue;
    experts = g.count;
    CHECK(g.parameters == 2 * 8 * 48 * 32);
  }
  CHECK(experts == 2 * 8);
  CHECK(tensors == static_cast<std::int64_t>(k.names().size()));
  CHECK(bytes == k.total_bytes());
  const io::Json a = architecture_json(k);
  CHECK(a.at("experts").as_int() == 8);
  CHECK(a.at("mixture_layers").as_int() == 2);
  CHECK(sparse_layers(k.mixture()) == 2);
}

}  // namespace
}  // namespace espalier::hub
