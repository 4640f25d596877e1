// SPDX-License-Identifier: Apache-2.0
// Which tensors hold experts: every tensor that transformers writes for every mixture
// (tests/golden/families/tensors.json), judged by its name and shape alone, and names of quantized
// releases.
#include <algorithm>

#include <espalier/hub/json_config.hpp>
#include <espalier/models/families/expert_names.hpp>

#include "support/catch.hpp"

using namespace espalier;

namespace {

ExpertNames names_of(const char* model_type) {
  const Family* family = find_family(model_type);
  REQUIRE(family != nullptr);
  return ExpertNames(*family);
}

/// "layer 3", "layer 3 expert 5", "layer 3 axis 0", "prediction 0 expert 1", or "-".
std::string found(const ExpertNames& names, std::string_view name) {
  const std::optional<ExpertTensor> t = names.find(name);
  if (!t) return "-";
  const std::string layer = (t->mtp ? "prediction " : "layer ") + std::to_string(t->layer);
  if (t->expert < 0) return layer + " axis " + std::to_string(t->axis);
  CHECK(ExpertNames::renumbered(name, *t, t->expert) == name);
  return layer + " expert " + std::to_string(t->expert);
}

/// What a name and a shape say without any knowledge of families. Only attention, convolutions and
/// state spaces have other axes as long as there are experts.
std::string by_shape(const std::string& name, const std::vector<std::int64_t>& shape,
                     std::int64_t experts) {
  const std::size_t layers = name.find("layers.");
  if (layers == std::string::npos) return "-";
  std::size_t end = 0;
  const std::string layer = "layer " + std::to_string(std::stoi(name.substr(layers + 7), &end));
  const std::size_t at = name.find(".experts.");
  if (at != std::string::npos && std::isdigit(name[at + 9]) != 0) {
    return layer + " expert " + std::to_string(std::stoi(name.substr(at + 9)));
  }
  for (const char* other : {"attn", "norm", "conv", "A_log", "dt_bias", "mixer.D", "in_proj"}) {
    if (name.find(other) != std::string::npos) return "-";
  }
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    if (shape[axis] == experts) return layer + " axis " + std::to_string(axis);
  }
  return "-";
}

}  // namespace

TEST_CASE("expert names: every tensor of every mixture is seen for what it is") {
  const io::Json all =
      io::read_json(std::string(ESPALIER_TESTS_DIR) + "/golden/families/tensors.json");
  int families = 0;
  for (const io::Json::Member& m : all.members()) {
    if (m.value.at("expert_count_key").is_null()) continue;
    const Family* family = find_family(m.value.at("model_type").as_string());
    if (family == nullptr && m.key.starts_with("olmoe")) continue;  // its header may be missing
    CAPTURE(m.key);
    REQUIRE(family != nullptr);
    const ExpertNames names(*family);
    const std::int64_t experts = m.key == "deepseek_v3" ? 12 : 8;
    int with_experts = 0;
    for (const io::Json& t : m.value.at("tensors").items()) {
      const std::string& name = t.at(0).as_string();
      std::vector<std::int64_t> shape;
      for (const io::Json& n : t.at(1).items()) shape.push_back(n.as_int());
      CAPTURE(name);
      CHECK(found(names, name) == by_shape(name, shape, experts));
      with_experts += names.find(name).has_value();
    }
    CHECK(with_experts >= 4);
    // The key of the count, as transformers writes it, is one that is edited.
    const auto& keys = family->expert_keys;
    CHECK(std::count(keys.begin(), keys.end(), m.value.at("expert_count_key").as_string()) == 1);
    const auto& top_k = family->top_k_keys;
    CHECK(std::count(top_k.begin(), top_k.end(), m.value.at("top_k_key").as_string()) == 1);
    ++families;
  }
  CHECK(families >= 22);
}

TEST_CASE("expert names: what stands beside a quantized weight goes with its expert") {
  const ExpertNames qwen = names_of("qwen3_moe"), mixtral = names_of("mixtral");
  for (const char* tensor :
       {"weight", "weight_scale_inv", "weight_packed", "weight_scale", "weight_shape",
        "weight_global_scale", "weight_scale_2", "input_scale", "qweight", "qzeros", "scales",
        "g_idx", "bias", "biases", "weight_g_idx", "weight_zero_point"}) {
    CAPTURE(tensor);
    CHECK(found(qwen, std::string("model.layers.3.mlp.experts.5.up_proj.") + tensor) ==
          "layer 3 expert 5");
    CHECK(found(mixtral, std::string("model.layers.30.block_sparse_moe.experts.15.w2.") + tensor) ==
          "layer 30 expert 15");
    CHECK(found(qwen, std::string("model.layers.3.mlp.up_proj.") + tensor) == "-");
  }
  const ExpertNames oss = names_of("gpt_oss");
  for (const char* tensor : {"gate_up_proj", "gate_up_proj_blocks", "gate_up_proj_scales",
                             "gate_up_proj_bias", "down_proj", "down_proj_blocks",
                             "down_proj_scales", "down_proj_bias", "gate_up_proj.scale_inv"}) {
    CAPTURE(tensor);
    CHECK(found(oss, std::string("model.layers.3.mlp.experts.") + tensor) == "layer 3 axis 0");
  }
  CHECK(found(oss, "model.layers.3.mlp.router.bias") == "layer 3 axis 0");
  CHECK(found(oss, "model.layers.3.self_attn.sinks") == "-");
}

TEST_CASE("expert names: layers of multi-token prediction") {
  const ExpertNames v3 = names_of("deepseek_v3"), next = names_of("qwen3_next"),
                    qwen35 = names_of("qwen3_5_moe"), nemotron = names_of("nemotron_h");
  CHECK(found(v3, "model.layers.61.mlp.experts.255.down_proj.weight") == "layer 61 expert 255");
  CHECK(v3.layer_of("model.layers.61.eh_proj.weight") == 61);
  CHECK(v3.layer_of("model.norm.weight") == -1);
  CHECK(found(next, "mtp.layers.0.mlp.experts.7.gate_proj.weight") == "prediction 0 expert 7");
  CHECK(found(next, "mtp.layers.0.mlp.gate.weight") == "prediction 0 axis 0");
  CHECK(found(next, "mtp.layers.0.mlp.shared_expert.gate_proj.weight") == "-");
  CHECK(found(qwen35, "mtp.layers.0.mlp.experts.gate_up_proj") == "prediction 0 axis 0");
  CHECK(found(qwen35, "mtp.layers.0.mlp.experts.7.up_proj.weight") == "prediction 0 expert 7");
  CHECK(found(qwen35, "model.language_model.layers.2.mlp.experts.down_proj") == "layer 2 axis 0");
  CHECK(found(nemotron, "mtp.layers.1.mixer.experts.7.up_proj.weight") == "prediction 1 expert 7");
  CHECK(next.is_mtp("mtp.fc.weight"));
  CHECK_FALSE(next.is_mtp("model.layers.0.mlp.gate.weight"));
}

TEST_CASE("expert names: only whole components count") {
  const ExpertNames names = names_of("mixtral");
  for (const char* name :
       {"model.layers.0.mlp.gate_proj.weight", "model.layers.0.self_attn.q_proj.weight",
        "lm_head.weight", "model.layers.x", "model.layers.0.block_sparse_moe.gate_proj.weight",
        "model.layers.0.block_sparse_moe.experts.5", "model.layers.0.block_sparse_moe.experts.5x.w",
        "model.layers.99999999999999999999.block_sparse_moe.gate.weight"}) {
    CAPTURE(name);
    CHECK(found(names, name) == "-");
  }
  CHECK(found(names, "model.layers.4.block_sparse_moe.gate.weight") == "layer 4 axis 0");
  // As transformers 5 has it in memory, and some checkpoints on disk.
  CHECK(found(names, "model.layers.4.mlp.gate.weight") == "layer 4 axis 0");
  CHECK(found(names, "model.layers.4.mlp.experts.gate_up_proj") == "layer 4 axis 0");
  const std::string name = "model.layers.4.block_sparse_moe.experts.15.w1.weight";
  CHECK(ExpertNames::renumbered(name, *names.find(name), 3) ==
        "model.layers.4.block_sparse_moe.experts.3.w1.weight");
}

TEST_CASE("expert names: what a tensor is for, of its router or of its experts") {
  const auto part = [](const char* model_type, const std::string& name) {
    CAPTURE(name);
    const std::optional<ExpertTensor> t = names_of(model_type).find("model.layers.3." + name);
    REQUIRE(t.has_value());
    return t->part;
  };
  CHECK(part("mixtral", "block_sparse_moe.gate.weight") == Part::router);
  CHECK(part("mixtral", "mlp.gate.weight") == Part::router);
  CHECK(part("mixtral", "block_sparse_moe.experts.5.w3.weight_scale") == Part::expert_up);
  CHECK(part("mixtral", "block_sparse_moe.experts.5.w2.qzeros") == Part::expert_down);
  CHECK(part("mixtral", "mlp.experts.gate_up_proj") == Part::experts_gate_up);
  CHECK(part("mixtral", "mlp.experts.down_proj") == Part::experts_down);
  CHECK(part("gpt_oss", "mlp.router.bias") == Part::router);
  CHECK(part("gpt_oss", "mlp.experts.down_proj_blocks") == Part::experts_down);
  CHECK(part("granitemoe", "block_sparse_moe.router.layer.weight") == Part::router);
  CHECK(part("granitemoe", "block_sparse_moe.output_linear.weight") == Part::experts_down);
  CHECK(part("ernie4_5_moe", "mlp.moe_statics.e_score_correction_bias") == Part::selection_bias);
  CHECK(part("lfm2_moe", "feed_forward.expert_bias") == Part::selection_bias);
  CHECK(ExpertTensor{.part = Part::selection_bias}.of_router());
  CHECK_FALSE(ExpertTensor{.part = Part::experts_down}.of_router());
  // A matrix that the family has no pattern for is some expert's all the same.
  CHECK_FALSE(
      names_of("mixtral").find("model.layers.3.block_sparse_moe.experts.5.w9.weight")->of_router());
}
