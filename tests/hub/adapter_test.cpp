// SPDX-License-Identifier: Apache-2.0
// Adapters by role in every family: what a target is called, on which modules it sits, and what
// adapter_config.json tells PEFT. What PEFT makes of it is judged in
// tests/interop/families_test.cpp.
#include <algorithm>
#include <set>

#include <espalier/hub/adapter.hpp>
#include <espalier/hub/checkpoint.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using espalier::test::message_of;

namespace {

using Names = std::vector<std::string>;

DecoderConfig config_of(const std::string& folder) {
  return hub::load_config(std::string(ESPALIER_TESTS_DIR) + "/golden/" + folder + "/model");
}
DecoderConfig family(const std::string& name) {
  return config_of("families/" + name);
}

std::string refusal(const DecoderConfig& config, const std::string& target) {
  return message_of<UsageError>([&] { (void)hub::target_modules_of(config, {target}); });
}

/// One pair of rank 1 on each module that `targets` name.
io::Adapter adapter_on(const DecoderConfig& config, const Names& targets) {
  const Names resolved = resolve_targets(config, targets);
  io::Adapter adapter;
  adapter.config.r = 1;
  adapter.config.target_modules = hub::target_modules_of(config, targets);
  for (const LinearModule& m : linear_modules(config)) {
    const std::string target(target_of(m.part));
    if (std::find(resolved.begin(), resolved.end(), target) == resolved.end()) continue;
    adapter.modules[m.name] = {Tensor<float>(Shape{1, m.in}, 1.0f),
                               Tensor<float>(Shape{m.out, 1}, 1.0f), 8};
  }
  return adapter;
}

}  // namespace

TEST_CASE("adapter: dense families name every target by its module", "[hub]") {
  const std::string name = GENERATE("llama", "llama_plain", "mistral", "qwen2", "qwen3");
  CAPTURE(name);
  const DecoderConfig c = family(name);
  CHECK(hub::target_modules_of(c, {"q", "k", "v", "o"}) ==
        Names{"q_proj", "k_proj", "v_proj", "o_proj"});
  CHECK(hub::target_modules_of(c, {"down", "gate", "up", "gate"}) ==
        Names{"down_proj", "gate_proj", "up_proj"});
  const Names all = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};
  CHECK(hub::target_modules_of(c, {"all"}) == all);
  CHECK(hub::target_modules_of(c, {"all+router"}) == all);  // there is none
  CHECK(refusal(c, "router") ==
        "lora: unknown target 'router', expected some of q,k,v,o,gate,up,down, or all, or "
        "all+router");
  CHECK_THAT(refusal(c, "w1"), Catch::StartsWith("lora: unknown target 'w1'"));
}

TEST_CASE("adapter: Mixtral knows its own names and the common ones", "[hub]") {
  const DecoderConfig c = config_of("tiny_mixtral");
  CHECK(hub::target_modules_of(c, {"w1", "w2", "w3"}) == Names{"w1", "w2", "w3"});
  CHECK(hub::target_modules_of(c, {"up", "down"}) == Names{"w3", "w2"});
  CHECK(hub::target_modules_of(c, {"gate"}) == Names{"gate"});  // its router
  CHECK(hub::target_modules_of(c, {"router"}) == Names{"gate"});
  CHECK(hub::target_modules_of(c, {"all"}) ==
        Names{"q_proj", "k_proj", "v_proj", "o_proj", "w1", "w3", "w2"});
  CHECK(hub::target_modules_of(c, {"all+router"}) ==
        Names{"q_proj", "k_proj", "v_proj", "o_proj", "gate", "w1", "w3", "w2"});
  CHECK(refusal(c, "q_proj") ==
        "lora: unknown target 'q_proj', expected some of q,k,v,o,router,gate,up,down,w1,w2,w3, or "
        "all, or all+router");
}

TEST_CASE("adapter: mixtures tell PEFT what it reaches as a parameter only", "[hub]") {
  CHECK(hub::target_modules_of(family("qwen3_moe"), {"all+router"}) ==
        Names{"q_proj", "k_proj", "v_proj", "o_proj", "gate", "gate_proj", "mlp.gate_proj.weight",
              "up_proj", "mlp.up_proj.weight", "down_proj", "mlp.down_proj.weight"});
  CHECK(hub::target_modules_of(family("qwen3_moe_plain"), {"gate", "up", "down"}) ==
        Names{"gate_proj", "up_proj", "down_proj"});
  CHECK(hub::target_modules_of(family("qwen2_moe"), {"all+router"}) ==
        Names{"q_proj", "k_proj", "v_proj", "o_proj", "mlp.gate.weight", "gate_proj", "up_proj",
              "down_proj", "shared_expert_gate"});
  CHECK(hub::target_modules_of(family("gpt_oss"), {"all+router"}) ==
        Names{"q_proj", "k_proj", "v_proj", "o_proj", "mlp.router.weight", "gate_proj", "up_proj",
              "down_proj"});
  CHECK(
      hub::target_modules_of(family("granitemoe"), {"all+router"}) ==
      Names{"q_proj", "k_proj", "v_proj", "o_proj", "layer", "gate_proj", "up_proj", "down_proj"});
  const Names mlp = {"mlp.down_proj.weight", "down_proj", "mlp.shared_experts.down_proj.weight"};
  for (const std::string name : {"deepseek_v2", "deepseek_v3", "glm4_moe"}) {
    CAPTURE(name);
    CHECK(hub::target_modules_of(family(name), {"down"}) == mlp);
    CHECK(hub::target_modules_of(family(name), {"router"}) == Names{"gate"});
  }
  CHECK(hub::target_modules_of(family("deepseek_v3"), {"q_a", "q_b", "kv_a", "kv_b", "o"}) ==
        Names{"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"});
  CHECK(hub::target_modules_of(family("deepseek_v3_plain"), {"q", "kv_a"}) ==
        Names{"q_proj", "kv_a_proj_with_mqa"});
  CHECK(refusal(family("deepseek_v3"), "q") ==
        "lora: unknown target 'q', expected some of q_a,q_b,kv_a,kv_b,o,gate,up,down,router, or "
        "all, or all+router");
}

TEST_CASE("adapter: it sits on modules as the disk names them, and says so again when it is read",
          "[hub]") {
  const std::string name = GENERATE("llama", "mistral", "qwen2", "qwen3", "mixtral_window",
                                    "qwen3_moe", "qwen2_moe", "granitemoe", "gpt_oss",
                                    "deepseek_v2", "deepseek_v2_lite", "deepseek_v3", "glm4_moe");
  CAPTURE(name);
  const hub::Checkpoint checkpoint(std::string(ESPALIER_TESTS_DIR) + "/golden/families/" + name +
                                   "/model");
  const DecoderConfig& c = checkpoint.config();
  const bool separate = !c.has_mixture() || c.mixture.storage == ExpertStorage::separate;
  for (const LinearModule& m : linear_modules(c)) {
    CAPTURE(m.name);
    if (m.expert < 0 || separate) CHECK(checkpoint.find(m.name + ".weight") != nullptr);
  }
  for (const Names& targets :
       {Names{"all+router"}, Names{"all"}, Names{"o"}, Names{"gate", "down"}}) {
    const io::Adapter made = adapter_on(c, targets);
    test::TemporaryFolder folder;
    std::vector<std::pair<std::string, AnyTensor>> tensors;
    for (const auto& [module, f] : made.modules) {
      tensors.emplace_back(module + ".lora_A.weight", f.a);
      tensors.emplace_back(module + ".lora_B.weight", f.b);
    }
    io::write_adapter(folder.path(), made.config, tensors);
    const io::Adapter read = io::read_adapter(folder.path());
    CHECK(std::set(read.config.target_modules.begin(), read.config.target_modules.end()) ==
          std::set(made.config.target_modules.begin(), made.config.target_modules.end()));
    hub::check_adapter_fits(read, c, "adapter");
    const LoraConfig lora = hub::lora_config_of(read, c, "adapter");
    CHECK(lora.r == 1);
    Names again = resolve_targets(c, lora.targets), want = resolve_targets(c, targets);
    std::sort(again.begin(), again.end());
    std::sort(want.begin(), want.end());
    CHECK(again == want);
  }
}

TEST_CASE("adapter: one of another family is refused by module", "[hub]") {
  const io::Adapter adapter = adapter_on(family("qwen3_moe"), {"gate"});
  CHECK(message_of<FormatError>(
            [&] { hub::check_adapter_fits(adapter, family("qwen3"), "adapter"); }) ==
        "adapter: module \"model.layers.0.mlp.experts.0.gate_proj\" is not in the model (2 layers, "
        "0 experts); is this adapter of another model?");
}
