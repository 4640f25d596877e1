// SPDX-License-Identifier: Apache-2.0
// PEFT adapters: what PEFT wrote is read, what is written is read back, what cannot be honoured is
// refused by key or tensor.
#include <espalier/hub/adapter.hpp>
#include <espalier/hub/json_config.hpp>
#include <espalier/io/adapter.hpp>
#include <espalier/io/sha256.hpp>

#include "support/catch.hpp"
#include "support/make_tensor.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::io;
using espalier::test::message_of;
namespace fs = std::filesystem;

namespace {

const std::string kGolden = std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/";

std::string config_refusal(const std::string& key, const std::string& value) {
  Json j = adapter_config_json({});
  j[key] = parse_json(value, "v");
  return message_of<FormatError>(
      [&] { (void)parse_adapter_config(parse_json(dump(j), "adapter_config.json")); });
}

std::vector<std::pair<std::string, AnyTensor>> one_pair(const std::string& module, std::int64_t r) {
  return {{module + ".lora_A.weight", Tensor<float>(Shape{r, 4}, 1.0f)},
          {module + ".lora_B.weight", Tensor<float>(Shape{3, r}, 2.0f)}};
}

AdapterConfig config_of(std::int64_t r) {
  AdapterConfig c;
  c.r = r;
  c.target_modules = {"q_proj"};
  return c;
}

}  // namespace

TEST_CASE("adapter: one written by PEFT is read and fits its model") {
  const Adapter a = read_adapter(kGolden + "adapter");
  hub::check_adapter_fits(a, hub::load_config(kGolden + "model"), "adapter");
  CHECK(a.config.r == 4);
  CHECK(a.config.alpha == 8);
  CHECK(a.config.target_modules.size() == 8);
  CHECK(a.modules.size() == 2 * (4 + 1 + 8 * 3));
  const LoraFactors f = a.find("model.layers.1.block_sparse_moe.experts.7.w2");
  CHECK(f.a.shape() == Shape{4, 48});
  CHECK(f.b.shape() == Shape{32, 4});
  CHECK(f.scale == 2);
  CHECK_FALSE(static_cast<bool>(a.find("model.layers.1.block_sparse_moe.experts.8.w2")));
  CHECK(test::same_bits(
      a.parameter("model.layers.0.self_attn.q_proj.lora_B.weight"),
      SafetensorsFile(kGolden + "adapter/adapter_model.safetensors")
          .tensor("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight")));
  CHECK(message_of<FormatError>([&] { (void)a.parameter("x.lora_C.weight"); }) ==
        "the adapter has no tensor \"x.lora_C.weight\"");
}

TEST_CASE("adapter: what is written is read back, in f32 whatever it was") {
  test::TemporaryFolder folder;
  AdapterConfig c = config_of(2);
  c.base_model = "some/model";
  c.alpha = 3.5;
  c.dropout = 0.1;
  c.rslora = true;
  c.rank_pattern = {{"k_proj", 1}};
  c.alpha_pattern = {{"layers\\.1\\..*", 6}};
  auto tensors = one_pair("model.layers.0.self_attn.q_proj", 2);
  for (auto& t : one_pair("model.layers.1.self_attn.k_proj", 1)) tensors.push_back(t);
  tensors[0].second = converted<bf16>(tensors[0].second);
  write_adapter(folder / "new/adapter", c, tensors);
  const Adapter a = read_adapter(folder / "new/adapter");
  CHECK(a.config.base_model == "some/model");
  CHECK(a.config.dropout == 0.1);
  CHECK(a.config.target_modules == c.target_modules);
  CHECK(a.find("model.layers.0.self_attn.q_proj").a.dtype() == DType::f32);
  CHECK(a.find("model.layers.0.self_attn.q_proj").scale == 3.5 / std::sqrt(2.0));
  CHECK(a.find("model.layers.1.self_attn.k_proj").scale == 6);
  const Json j = read_json(folder / "new/adapter/adapter_config.json");
  CHECK(j.at("peft_type").as_string() == "LORA");
  CHECK(j.at("task_type").as_string() == "CAUSAL_LM");
  CHECK(j.at("inference_mode").as_bool());
  for (std::size_t i = 1; i < j.members().size(); ++i) {
    CHECK(j.members()[i - 1].key < j.members()[i].key);
  }
}

TEST_CASE("adapter: values that are not finite are not written, nor anything else") {
  for (const float bad : {std::nanf(""), -std::numeric_limits<float>::infinity()}) {
    test::TemporaryFolder folder;
    auto tensors = one_pair("model.layers.0.self_attn.q_proj", 2);
    Tensor<float>(tensors[1].second)[3] = bad;
    CHECK(message_of<Error>([&] { write_adapter(folder / "a", config_of(2), tensors); },
                            folder.path()) ==
          "a/adapter_model.safetensors: tensor \"" + tensors[1].first + "\" " +
              espalier::detail::concat({tensors[1].second.shape()}) + " holds " +
              (std::isnan(bad) ? "nan" : "-inf") +
              " (element 3); values must be finite to be written");
    CHECK_FALSE(std::filesystem::exists(folder / "a"));
  }
}

TEST_CASE("adapter: a matrix that PEFT finds as a parameter is written among target_parameters") {
  AdapterConfig c = config_of(2);
  CHECK(adapter_config_json(c).find("target_parameters") == nullptr);
  c.target_modules = {"mlp.gate.weight", "q_proj", "mlp.up_proj.weight"};
  const Json j = adapter_config_json(c);
  CHECK(j.at("target_modules") == Json::array(std::vector<std::string>{"q_proj"}));
  CHECK(j.at("target_parameters") ==
        Json::array(std::vector<std::string>{"mlp.gate.weight", "mlp.up_proj.weight"}));
  CHECK(parse_adapter_config(j).target_modules ==
        std::vector<std::string>{"q_proj", "mlp.gate.weight", "mlp.up_proj.weight"});
}

TEST_CASE("adapter: patterns match whole path components, and the first that matches counts") {
  AdapterConfig c = config_of(8);
  c.rank_pattern = {{"q_proj", 2}, {"layers.1.self_attn.q_proj", 4}, {"w[13]", 16}};
  CHECK(c.rank_of("model.layers.1.self_attn.q_proj") == 2);
  CHECK(c.rank_of("model.layers.1.self_attn.xq_proj") == 8);
  CHECK(c.rank_of("model.layers.1.block_sparse_moe.experts.0.w3") == 16);
  CHECK(c.rank_of("model.layers.1.block_sparse_moe.experts.0.w2") == 8);
  CHECK(c.alpha_of("model.layers.1.block_sparse_moe.experts.0.w2") == 8);
}

TEST_CASE("adapter: settings that would change the numbers are refused by key") {
  CHECK(config_refusal("peft_type", "\"IA3\"") ==
        "adapter_config.json: at \"peft_type\": \"IA3\" is not supported; expected \"LORA\"");
  CHECK(config_refusal("use_dora", "true") ==
        "adapter_config.json: at \"use_dora\": true is not supported; expected a plain LoRA "
        "adapter");
  CHECK(config_refusal("bias", "\"all\"") ==
        "adapter_config.json: at \"bias\": \"all\" is not supported; expected \"none\"");
  CHECK(config_refusal("modules_to_save", "[\"lm_head\"]") ==
        "adapter_config.json: at \"modules_to_save\": is not supported; expected null");
  CHECK_THAT(config_refusal("target_parameters", "[\"mlp.experts.gate_up_proj\"]"),
             Catch::Contains("convert_adapter"));
  CHECK(config_refusal("target_parameters", "[\"mlp.gate.weight\"]") == "no exception");
  CHECK(config_refusal("target_parameters", "[]") == "no exception");
  CHECK_THAT(config_refusal("init_lora_weights", "\"pissa_niter_4\""),
             Catch::StartsWith("adapter_config.json: at \"init_lora_weights\": \"pissa_niter_4\" "
                               "alters the base weights"));
  CHECK(config_refusal("init_lora_weights", "\"gaussian\"") == "no exception");
  CHECK(config_refusal("some_new_key", "{\"a\": 1}") == "no exception");
  CHECK(config_refusal("modules_to_save", "[]") == "no exception");
  CHECK(config_refusal("r", "0") ==
        "adapter_config.json: at \"r\": rank 0 is out of range, expected at least 1");
  CHECK(
      config_refusal("lora_alpha", "1e308") ==
      "adapter_config.json: at \"lora_alpha\": alpha 1e+308 is out of range, expected at most 1e9");
  CHECK(config_refusal("alpha_pattern", "{\"q_proj\": -1e10}") ==
        "adapter_config.json: at \"alpha_pattern\".\"q_proj\": alpha -1e+10 is out of range, "
        "expected at most 1e9");
  CHECK_THAT(config_refusal("rank_pattern", "{\"(q_proj\": 2}"),
             Catch::Contains("at \"rank_pattern\".\"(q_proj\": the pattern does not compile: "));
  CHECK(config_refusal("rank_pattern", "{\"" + std::string(300, 'a') + "\": 2}") == "no exception");
}

TEST_CASE("adapter: tensors that do not belong together are refused by name") {
  test::TemporaryFolder folder;
  const auto refusal = [&](const std::vector<std::pair<std::string, AnyTensor>>& tensors,
                           std::int64_t r = 2) {
    write_adapter(folder / "a", config_of(r), tensors);
    return message_of<Error>([&] { (void)read_adapter(folder / "a"); }, folder.path());
  };
  const std::string q = "model.layers.0.self_attn.q_proj", file = "a/adapter_model.safetensors: ";
  CHECK(refusal(one_pair(q, 2)) == "no exception");
  CHECK(refusal(one_pair(q, 3)) == file + "module \"" + q +
                                       "\": lora_A is [3, 4], lora_B is [3, 3], expected rank 2 by "
                                       "adapter_config.json");
  auto tensors = one_pair(q, 2);
  tensors.pop_back();
  CHECK(refusal(tensors) ==
        file + "module \"" + q + "\" has only lora_A; expected both lora_A and lora_B");
  tensors = one_pair(q, 2);
  tensors[0].second = Tensor<float>(Shape{8}, 0.0f);
  CHECK(refusal(tensors) ==
        file + "tensor \"base_model.model." + q + ".lora_A.weight\": is [8], expected a matrix");
  CHECK_THAT(refusal({{"lm_head.weight", Tensor<float>(Shape{1, 1}, 0.0f)}}),
             Catch::Contains("expected a name that ends in .lora_A.weight"));
  fs::remove(folder / "a/adapter_model.safetensors");
  CHECK_THAT(message_of<IoError>([&] { (void)read_adapter(folder / "a"); }, folder.path()),
             Catch::Contains("has no adapter_model.safetensors"));
}

TEST_CASE("adapter: one of another model is refused by module") {
  DecoderConfig other = hub::load_config(kGolden + "model");
  other.mixture.experts = 4;
  const Adapter a = read_adapter(kGolden + "adapter");
  CHECK(message_of<FormatError>([&] { hub::check_adapter_fits(a, other, "adapter"); }) ==
        "adapter: module \"model.layers.0.block_sparse_moe.experts.4.w1\" is not in the model (2 "
        "layers, 4 experts); is this adapter of another model?");
  other.mixture.experts = 8;
  other.mixture.width = 50;
  CHECK(message_of<FormatError>([&] { hub::check_adapter_fits(a, other, "adapter"); }) ==
        "adapter: module \"model.layers.0.block_sparse_moe.experts.0.w1\" maps 32 to 48 values, "
        "the model's matrix 32 to 50");
}

TEST_CASE("sha256: the examples of FIPS 180-4, and every length around a block") {
  CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sha256(std::string(1000000, 'a')) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  CHECK(sha256(std::string(64, 'a')) ==
        "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
}
