// SPDX-License-Identifier: Apache-2.0
// Pruning the tiny models of every family (tests/golden/families): both layouts are proven, and
// compute bit for bit what the base computes with the dropped experts masked. What config.json says
// afterwards: counts, patterns of quantizers, multi-token prediction.
#include <algorithm>

#include <espalier/hub/load_model.hpp>
#include <espalier/prune/criteria.hpp>
#include <espalier/prune/verify.hpp>

#include "support/catch.hpp"
#include "support/make_tensor.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::prune;
using espalier::test::message_of;
using espalier::test::read_bytes;
using espalier::test::write_bytes;
namespace fs = std::filesystem;

namespace {

const fs::path kFamilies = fs::path(ESPALIER_TESTS_DIR) / "golden/families";

/// Every third expert goes, or of each group the last one.
Plan plan_for(const hub::Mixture& m) {
  const std::int64_t of_group = m.experts / m.groups;
  Plan plan;
  for (std::size_t l = 0; l < m.sparse.size(); ++l) {
    plan.keep.emplace_back();
    for (std::int64_t e = 0; m.has(l) && e < m.experts; ++e) {
      const auto shift = static_cast<std::int64_t>(l);
      const bool drop = m.groups > 1 ? e % of_group == (shift % of_group)
                                     : (e + shift) % 3 == 2 && e < m.experts - m.experts % 3;
      if (!drop) plan.keep.back().push_back(static_cast<int>(e));
    }
  }
  return plan;
}

AnyTensor logits(const hub::Checkpoint& checkpoint, const std::vector<std::vector<int>>& keep) {
  const NoGrad no_grad;
  Decoder<float> model = hub::load_model<float>(checkpoint);
  model.mask_experts(keep);
  const PackedTokens tokens({1, 17, 33, 5, 62, 9, 9, 40, 3, 21, 60, 2});
  return model.logits(model.hidden(tokens).value());
}

/// A copy of a checkpoint in one file, each tensor under the names that `rename` gives it.
template <class Rename>
void rewrite(const fs::path& from, const fs::path& to, const std::string& config,
             const Rename& rename) {
  const io::CheckpointFiles files(from);
  std::vector<std::pair<std::string, AnyTensor>> tensors;
  for (const std::string& name : files.names()) {
    for (const std::string& n : rename(name)) tensors.emplace_back(n, files.tensor(name));
  }
  fs::create_directories(to);
  io::save_safetensors(to / "model.safetensors", tensors);
  write_bytes(to / "config.json", config);
}

/// Its config.json with a member more.
std::string config_with(const fs::path& model, const std::string& members) {
  std::string text = read_bytes(model / "config.json");
  const std::size_t end = text.rfind('}');
  std::size_t last = end;
  while (text[last - 1] == '\n' || text[last - 1] == ' ') --last;
  return text.replace(last, end - last, ",\n" + members + "\n");
}

}  // namespace

TEST_CASE("prune: a pruned model of every family is its masked base, bit for bit") {
  int checked = 0;
  for (const auto& entry : fs::directory_iterator(kFamilies)) {
    if (!entry.is_directory()) continue;
    const io::Json config = io::read_json(entry.path() / "model/config.json");
    if (find_family(config.at("model_type").as_string()) == nullptr) continue;
    const std::string name = entry.path().filename();
    CAPTURE(name);
    test::TemporaryFolder folder;
    fs::path model = entry.path() / "model";
    if (name == "deepseek_v2") {  // groups of two: with one left of each, two groups hold two
      io::Json two = config;
      two["num_experts_per_tok"] = 2;
      rewrite(model, folder / "base", io::dump(two, 2),
              [](const std::string& n) { return std::vector<std::string>{n}; });
      model = folder / "base";
    }
    const hub::Checkpoint base(model);
    if (base.mixture().experts == 0) continue;
    const Plan plan = plan_for(base.mixture());
    for (const ShardLayout layout : {ShardLayout::standard, ShardLayout::consolidated}) {
      const bool standard = layout == ShardLayout::standard;
      const fs::path out = folder / (standard ? "standard" : "consolidated");
      const Export what = plan_export(base, plan, layout, 30000, "plan");
      write_export(base, plan, what, out, {});
      const hub::Checkpoint pruned(out);
      CHECK(verify_export(base, pruned, plan, "plan", {}).problems.empty());
      CHECK(pruned.mixture().experts == kept_count(plan));
      CHECK(pruned.mixture().experts < base.mixture().experts);
      if (standard) {
        CHECK(test::same_bits(logits(pruned, {}), logits(base, plan.keep)));
        CHECK_FALSE(test::same_bits(logits(base, {}), logits(base, plan.keep)));
      }
    }
    ++checked;
  }
  CHECK(checked >= 11);
}

TEST_CASE("prune: two names for the number of experts are both changed, and may not differ") {
  test::TemporaryFolder folder;
  const fs::path model = kFamilies / "mixtral_window/model";
  const auto same = [](const std::string& name) { return std::vector<std::string>{name}; };
  const std::string both = config_with(model, "  \"num_experts\": 8, \"n_routed_experts\":8");
  rewrite(model, folder / "base", both, same);
  const hub::Checkpoint base(folder / "base");
  const Plan plan = plan_for(base.mixture());
  write_export(base, plan, plan_export(base, plan, ShardLayout::standard, 0, "plan"),
               folder / "out", {});
  std::string want = both;
  for (const char* key : {"\"num_local_experts\": ", "\"num_experts\": ", "\"n_routed_experts\":"})
    want.replace(want.find(key) + std::strlen(key), 1, "6");
  CHECK(read_bytes(folder / "out/config.json") == want);
  CHECK(verify_export(base, hub::Checkpoint(folder / "out"), plan, "plan", {}).problems.empty());
  // A stale one is found, be it by opening or by comparing.
  write_bytes(folder / "out/config.json", both);
  CHECK_THROWS_AS(hub::Checkpoint(folder / "out"), FormatError);

  rewrite(model, folder / "differ", config_with(model, "  \"n_routed_experts\": 6"), same);
  CHECK_THAT(message_of<FormatError>([&] { hub::Checkpoint k(folder / "differ"); }),
             Catch::Contains("\"n_routed_experts\": is 6, but num_local_experts is 8; both name "
                             "the number of experts"));
  std::string other = read_bytes(model / "config.json");
  other.replace(other.find("num_local_experts"), 17, "num_experts");
  rewrite(model, folder / "alias", other, same);
  CHECK(hub::Checkpoint(folder / "alias").mixture().experts == 8);
}

TEST_CASE("prune: experts in one tensor, as transformers has them in memory, are cut in it") {
  test::TemporaryFolder folder;
  const fs::path model = kFamilies / "mixtral_window/model";
  const io::CheckpointFiles files(model);
  std::vector<std::pair<std::string, AnyTensor>> tensors;
  for (const std::string& name : files.names()) {
    if (name.find("block_sparse_moe") == std::string::npos)
      tensors.emplace_back(name, files.tensor(name));
  }
  for (int l = 0; l < 2; ++l) {
    const std::string layer = "model.layers." + std::to_string(l);
    tensors.emplace_back(layer + ".mlp.gate.weight",
                         files.tensor(layer + ".block_sparse_moe.gate.weight"));
    Tensor<float> fused(Shape{8, 4, 6}, 0.0f);
    for (std::int64_t i = 0; i < fused.numel(); ++i) fused[i] = static_cast<float>(i);
    tensors.emplace_back(layer + ".mlp.experts.gate_up_proj", fused);
    tensors.emplace_back(layer + ".mlp.experts.down_proj", fused);
  }
  fs::create_directories(folder / "base");
  io::save_safetensors(folder / "base/model.safetensors", tensors);
  fs::copy(model / "config.json", folder / "base/config.json");
  const hub::Checkpoint base(folder / "base");
  CHECK_FALSE(base.computable());
  CHECK_THAT(base.why_not_computable(), Catch::Contains("holds all experts in one"));
  const Plan plan = plan_for(base.mixture());
  write_export(base, plan, plan_export(base, plan, ShardLayout::standard, 0, "plan"),
               folder / "out", {});
  const hub::Checkpoint out(folder / "out");
  CHECK(verify_export(base, out, plan, "plan", {}).problems.empty());
  const Tensor<float> cut(out.tensor("model.layers.1.mlp.experts.down_proj"));
  CHECK(cut.shape() == Shape{6, 4, 6});
  CHECK(cut[24 * 5] == 24.0f * static_cast<float>(plan.keep[1][5]));
}

namespace {

/// The patterns in which quantizers name experts: lists of modules, regular expressions, keys.
std::string quantized_config(const fs::path& model) {
  return config_with(
      model,
      "  \"quantization_config\": {\"quant_method\": \"x\",\n"
      "    \"ignore\": [\"lm_head\", \"model.layers.0.mlp.experts.3.down_proj\",\n"
      "      \"model.layers.0.mlp.experts.2.up_proj\", "
      "\"re:.*layers\\\\.2\\\\..*experts\\\\.6\\\\..*\","
      " \"re:.*mlp\\\\.gate$\", \"model.layers.0.mlp.shared_experts.1.up\"],\n"
      "    \"modules_in_block_to_quantize\": [[\"mlp.experts.0.a\", \"mlp.experts.1.a\",\n"
      "      \"mlp.experts.2.a\", \"mlp.experts.3.a\", \"mlp.experts.4.a\", \"mlp.experts.5.a\",\n"
      "      \"mlp.experts.6.a\", \"mlp.experts.7.a\", \"self_attn.q\"]],\n"
      "    \"dynamic\": {\"-:model\\\\.layers\\\\.2\\\\.mlp\\\\.experts\\\\.7\\\\.\": {},\n"
      "      \"+:.*experts\\\\.[0-9]+\\\\..*\": {\"bits\": 8}}}");
}

}  // namespace

TEST_CASE("prune: quantized experts go and stay with all their tensors, and patterns follow") {
  test::TemporaryFolder folder;
  const fs::path model = kFamilies / "qwen3_moe/model";  // layer 1 is dense
  const std::string config = quantized_config(model);
  rewrite(model, folder / "base", config, [](const std::string& name) {
    std::vector<std::string> names = {name};
    if (name.find(".experts.") != std::string::npos) {
      names = {name.substr(0, name.size() - 6) + "qweight", name + "_scale_inv",
               name.substr(0, name.size() - 6) + "g_idx"};
    }
    return names;
  });
  write_bytes(folder / "base/hf_quant_config.json",
              "{\"quantization\": {\"exclude_modules\": [\"lm_head\", "
              "\"model.layers.0.mlp.experts.5.up_proj\"]}}");
  const hub::Checkpoint base(folder / "base");
  CHECK_FALSE(base.computable());
  CHECK(base.mixture().sparse == std::vector<bool>{true, false, true});
  const Plan plan{{{0, 1, 3, 4, 5, 7}, {}, {0, 2, 3, 5, 6, 7}}, {}};
  write_export(base, plan, plan_export(base, plan, ShardLayout::standard, 0, "plan"),
               folder / "out", {});
  const hub::Checkpoint out(folder / "out");
  const Verification v = verify_export(base, out, plan, "plan", {});
  CHECK(v.problems.empty());
  CHECK(v.dropped_tensors == 2 * 2 * 9);
  std::string want = config;
  const auto change = [&](const std::string& from, const std::string& to) {
    const std::size_t at = want.find(from);
    REQUIRE(at != std::string::npos);
    want.replace(at, from.size(), to);
  };
  change("\"num_local_experts\": 8", "\"num_local_experts\": 6");
  change(
      "experts.3.down_proj\",\n      \"model.layers.0.mlp.experts.2.up_proj\", \"re:.*layers\\\\.2"
      "\\\\..*experts\\\\.6",
      "experts.2.down_proj\", \"re:.*layers\\\\.2\\\\..*experts\\\\.4");
  change(
      ", \"mlp.experts.4.a\", \"mlp.experts.5.a\",\n      \"mlp.experts.6.a\", \"mlp.experts.7.a\"",
      ", \"mlp.experts.4.a\", \"mlp.experts.5.a\"");
  change("\"mlp.experts.1.a\",\n      \"mlp", "\"mlp.experts.1.a\", \"mlp");
  change("experts\\\\.7\\\\.\": {}", "experts\\\\.5\\\\.\": {}");
  CHECK(read_bytes(folder / "out/config.json") == want);
  CHECK(read_bytes(folder / "out/hf_quant_config.json") ==
        "{\"quantization\": {\"exclude_modules\": [\"lm_head\", "
        "\"model.layers.0.mlp.experts.4.up_proj\"]}}");

  const auto refused = [&](const std::string& pattern) {
    const io::Json list = io::Json::array(std::vector<std::string>{pattern});
    return message_of<UnsupportedError>(
        [&] { (void)ExpertPatterns(base, plan, "c").renumbered(list); });
  };
  CHECK(refused("re:.*experts\\.(3|5)\\..*") ==
        "c: pattern \"re:.*experts\\.(3|5)\\..*\" chooses between numbers; write it out, an entry "
        "per layer and expert, to prune this checkpoint");
  CHECK_THAT(refused("mlp.experts.4.a"), Catch::Contains("the plan keeps the expert in some only"));
  CHECK_THAT(refused("model.layers.0.mlp.experts.4*"),
             Catch::Contains("names experts by the beginning of a number"));
  CHECK(refused("mlp.experts.0.a") == "no exception");
}

TEST_CASE("prune: multi-token prediction is left out, or pruned by a plan that covers it") {
  test::TemporaryFolder folder;
  const fs::path model = kFamilies / "deepseek_v3_plain/model";
  std::string config = read_bytes(model / "config.json");
  const bool has_key = config.find("num_nextn_predict_layers") != std::string::npos;
  if (!has_key) config = config_with(model, "  \"num_nextn_predict_layers\": 1");
  io::Json with = io::parse_json(config, "config");
  with["num_nextn_predict_layers"] = 1;
  config = io::dump(with, 2);
  rewrite(model, folder / "base", config, [](const std::string& name) {
    std::vector<std::string> names = {name};
    const std::string layer = "model.layers.1.";
    if (name.starts_with(layer)) names.push_back("model.layers.2." + name.substr(layer.size()));
    if (name == "model.norm.weight") names.push_back("model.layers.2.eh_proj.weight");
    return names;
  });
  const hub::Checkpoint base(folder / "base");
  REQUIRE(base.mixture().prediction.size() == 1);
  const std::vector<int> keep = {0, 2, 3, 5, 6, 7}, mtp = {1, 2, 3, 4, 5, 6};
  const Plan layers{{{}, keep}, {}}, all{{{}, keep, mtp}, {}};
  const Export what = plan_export(base, layers, ShardLayout::standard, 0, "plan");
  CHECK(std::count(what.left_out.begin(), what.left_out.end(), "model.layers.2.eh_proj.weight") ==
        1);
  write_export(base, layers, what, folder / "without", {});
  const hub::Checkpoint without(folder / "without");
  CHECK(without.mixture().prediction.empty());
  CHECK(without.find("model.layers.2.eh_proj.weight") == nullptr);
  CHECK(without.config_json().at("num_nextn_predict_layers").as_int() == 0);
  const Verification v = verify_export(base, without, layers, "plan", {});
  CHECK(v.problems.empty());
  CHECK(v.left_out == what.left_out.size());
  CHECK(test::same_bits(logits(without, {}), logits(base, layers.keep)));

  write_export(base, all, plan_export(base, all, ShardLayout::standard, 0, "plan"), folder / "with",
               {});
  const hub::Checkpoint with_mtp(folder / "with");
  CHECK(with_mtp.mixture().prediction.size() == 1);
  CHECK(with_mtp.config_json().at("num_nextn_predict_layers").as_int() == 1);
  CHECK(verify_export(base, with_mtp, all, "plan", {}).problems.empty());
  const std::string expert = ".mlp.experts.0.up_proj.weight";
  CHECK(test::same_bits(with_mtp.tensor("model.layers.2" + expert),
                        base.tensor("model.layers.2.mlp.experts.1.up_proj.weight")));
  // The other plan does not prove it.
  CHECK_FALSE(verify_export(base, with_mtp, layers, "plan", {}).problems.empty());
}

TEST_CASE("criteria of weights say which tensor is no matrix of numbers") {
  test::TemporaryFolder folder;
  const fs::path model = kFamilies / "gpt_oss/model";
  const io::CheckpointFiles files(model);
  std::vector<std::pair<std::string, AnyTensor>> tensors;
  for (const std::string& name : files.names()) {
    if (name.ends_with("experts.gate_up_proj") || name.ends_with("experts.down_proj")) {
      tensors.emplace_back(name + "_blocks", AnyTensor(Shape{8, 4, 1, 16}, DType::u8));
      tensors.emplace_back(name + "_scales", AnyTensor(Shape{8, 4, 1}, DType::u8));
    } else {
      tensors.emplace_back(name, files.tensor(name));
    }
  }
  fs::create_directories(folder / "base");
  io::save_safetensors(folder / "base/model.safetensors", tensors);
  write_bytes(folder / "base/config.json",
              config_with(model, "  \"quantization_config\": {\"quant_method\": \"mxfp4\"}"));
  const hub::Checkpoint base(folder / "base");
  CHECK_THAT(message_of<UnsupportedError>([&] { (void)expert_matrices(base, 0, 3); }),
             Catch::Contains("_blocks\" is U8; norms of experts need their weights as numbers") ||
                 Catch::Contains("_scales\" is U8; norms of experts need their weights as"));
  WeightNormOptions options;
  options.experts = false;
  const LayerScores scores = weight_scores("router_norm", weight_norms({base}, options));
  CHECK(scores[0].size() == 8);
  CHECK(scores[0][3] > 0);
}

TEST_CASE("a head of its own counts, whatever config.json says of tied embeddings") {
  test::TemporaryFolder folder;
  const fs::path model = kFamilies / "mixtral_window/model";
  io::Json config = io::read_json(model / "config.json");
  config["tie_word_embeddings"] = true;
  rewrite(model, folder / "other", io::dump(config, 2),
          [](const std::string& name) { return std::vector<std::string>{name}; });
  const hub::Checkpoint other(folder / "other");
  REQUIRE(other.warnings().size() == 1);
  CHECK_THAT(other.warnings()[0], Catch::Contains("tie_word_embeddings is true, but "
                                                  "\"lm_head.weight\" is not the embedding"));
  CHECK(test::same_bits(logits(other, {}), logits(hub::Checkpoint(model), {})));
  rewrite(model, folder / "equal", io::dump(config, 2), [](const std::string& name) {
    if (name == "lm_head.weight") return std::vector<std::string>{};
    if (name != "model.embed_tokens.weight") return std::vector<std::string>{name};
    return std::vector<std::string>{name, "lm_head.weight"};
  });
  CHECK(hub::Checkpoint(folder / "equal").warnings().empty());
}
