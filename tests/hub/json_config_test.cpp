// SPDX-License-Identifier: Apache-2.0
// config.json to DecoderConfig: both generations of transformers, and what is refused.
#include <espalier/hub/json_config.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::io;
using espalier::test::message_of;

namespace {

/// As mistralai/Mixtral-8x7B-Instruct-v0.1 has it.
constexpr const char* kMixtral = R"({"architectures": ["MixtralForCausalLM"],
  "attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
  "hidden_size": 4096, "initializer_range": 0.02, "intermediate_size": 14336,
  "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32,
  "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
  "num_local_experts": 8, "output_router_logits": false, "rms_norm_eps": 1e-05,
  "rope_theta": 1000000.0, "router_aux_loss_coef": 0.02, "sliding_window": null,
  "tie_word_embeddings": false, "torch_dtype": "bfloat16", "use_cache": true, "vocab_size": 32000})";

/// The config with one key set to the JSON in `value`.
std::string with(const char* key, const char* value) {
  Json j = parse_json(kMixtral, "base");
  j[key] = parse_json(value, "value");
  return dump(j);
}
DecoderConfig config(const std::string& text) {
  return hub::parse_config(parse_json(text, "config.json"));
}
std::string refusal(const char* key, const char* value) {
  return message_of<FormatError>([&] { (void)config(with(key, value)); });
}

}  // namespace

TEST_CASE("Mixtral's own config is read in full") {
  const DecoderConfig c = config(kMixtral);
  CHECK(c.model_type == "mixtral");
  CHECK(c.hidden_size == 4096);
  CHECK(c.mixture.width == 14336);
  CHECK(c.num_hidden_layers == 32);
  CHECK(c.attention.heads == 32);
  CHECK(c.attention.kv_heads == 8);
  CHECK(c.attention.head_dim == 128);
  CHECK(c.mixture.experts == 8);
  CHECK(c.mixture.router.top_k == 2);
  CHECK(c.vocab_size == 32000);
  CHECK(c.max_position_embeddings == 32768);
  CHECK(c.attention.window == 0);
  CHECK(c.rms_norm_eps == 1e-5);
  CHECK(c.attention.rope.theta == 1e6);
  CHECK(c.router_aux_loss_coef == 0.02);
  CHECK_FALSE(c.tie_word_embeddings);
  CHECK(c.bos_token_id == 1);
  CHECK(c.pad_token_id == -1);
  CHECK(c.eos_token_ids == std::vector<std::int32_t>{2});
}

TEST_CASE("Other spellings mean the same") {
  Json j = parse_json(kMixtral, "base");
  j.erase("rope_theta");
  j["rope_parameters"] = parse_json(R"({"rope_type": "default", "rope_theta": 5000})", "rope");
  j["head_dim"] = nullptr;
  j["eos_token_id"] = Json::array(std::vector<int>{2, 7});
  j["sliding_window"] = 4096;
  const DecoderConfig c = config(dump(j));
  CHECK(c.attention.rope.theta == 5000.0);
  CHECK(c.attention.head_dim == 128);
  CHECK(c.eos_token_ids == std::vector<std::int32_t>{2, 7});
  CHECK(c.attention.window == 4096);
  CHECK(config(with("head_dim", "64")).attention.head_dim == 64);
}

TEST_CASE("A dense Llama config has no experts, and its own defaults") {
  const DecoderConfig c = config(R"({"model_type": "llama", "hidden_size": 576,
      "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
      "vocab_size": 49152, "rope_scaling": null, "mlp_bias": false, "tie_word_embeddings": true})");
  CHECK(c.mixture.experts == 0);
  CHECK(c.mixture.router.top_k == 0);
  CHECK(c.attention.kv_heads == 9);
  CHECK(c.rms_norm_eps == 1e-6);
  CHECK(c.attention.rope.theta == 1e4);
  CHECK(c.tie_word_embeddings);
}

TEST_CASE("What cannot be computed is refused by name") {
  CHECK_THAT(refusal("model_type", "\"bert\""),
             Catch::StartsWith(
                 "config.json: at \"model_type\": \"bert\" is not a known family; there are "));
  CHECK(refusal("model_type", "\"deepseek_v4\"") ==
        "config.json: at \"model_type\": \"deepseek_v4\" is not supported: its first layers route "
        "by a table from tokens to experts, which pruning would break");
  CHECK_THAT(refusal("model_type", "\"phimoe\""),
             Catch::Contains("can be inspected, pruned and verified, but its forward pass is not "
                             "there; it is for "));
  CHECK(refusal("num_local_experts", "\"8\"") ==
        "config.json: at \"num_local_experts\": expected an integer, found a string");
  CHECK(refusal("num_experts_per_tok", "9") ==
        "config.json: num_experts_per_tok 9 exceeds num_local_experts 8");
  CHECK(refusal("num_key_value_heads", "5") ==
        "config.json: num_attention_heads 32 is not a multiple of num_key_value_heads 5");
  CHECK(
      refusal("hidden_size", "4100") ==
      "config.json: hidden_size 4100 is not a multiple of num_attention_heads 32, and there is no "
      "head_dim");
  CHECK(refusal("head_dim", "127") ==
        "config.json: head_dim 127 is odd; rotary embeddings need an even one");
  CHECK(refusal("hidden_size", "0") ==
        "config.json: at \"hidden_size\": expected 1 to 2147483647, found 0");
  CHECK(refusal("num_hidden_layers", "2000000000") ==
        "config.json: 2000000000 layers are more than any checkpoint has");
  CHECK(refusal("attention_bias", "true") ==
        "config.json: \"attention_bias\" is true; biases are not supported");
  CHECK(refusal("hidden_act", "\"gelu\"") ==
        "config.json: at \"hidden_act\": \"gelu\" is not supported; expected \"silu\"");
  CHECK(refusal("rope_scaling", R"({"rope_type": "longrope", "factor": 4})") ==
        "config.json: at \"rope_scaling\".\"rope_type\": rope scaling \"longrope\" is not "
        "supported; expected \"default\", \"linear\", \"yarn\" or \"llama3\"");
  CHECK(refusal("rope_parameters", R"({"type": "dynamic"})") ==
        "config.json: at \"rope_parameters\".\"type\": rope scaling \"dynamic\" is not "
        "supported; expected \"default\", \"linear\", \"yarn\" or \"llama3\"");
  CHECK(refusal("rope_scaling", R"({"factor": 4})") ==
        "config.json: at \"rope_scaling\": has no \"rope_type\"; expected \"default\", \"linear\", "
        "\"yarn\" or \"llama3\"");
  CHECK(refusal("rope_parameters", R"({"factor": 4, "rope_theta": 10000})") ==
        "config.json: at \"rope_parameters\": has no \"rope_type\"; expected \"default\", "
        "\"linear\", \"yarn\" or \"llama3\"");
  for (const auto& [value, shown] : {std::pair("-1", "-1"), {"1e308", "1e+308"}, {"0", "0"}}) {
    CHECK(refusal("rope_theta", value) == "config.json: rope_theta " + std::string(shown) +
                                              ", expected a positive number of at most 1e30");
  }
  for (const auto& [value, shown] : {std::pair("-1", "-1"), {"1e308", "1e+308"}, {"1.5", "1.5"}}) {
    CHECK(refusal("rms_norm_eps", value) ==
          "config.json: rms_norm_eps " + std::string(shown) + ", expected a number from 0 to 1");
  }
  CHECK(refusal("eos_token_id", "[1, -7]") ==
        "config.json: at \"eos_token_id\": -7 is not a token id");
  CHECK_THAT(refusal("quantization_config", "{}"), Catch::Contains("quantized checkpoints"));
}

TEST_CASE("What is written as config.json reads back the same") {
  DecoderConfig c = config(kMixtral);
  c.eos_token_ids = {2, 9};
  c.attention.head_dim = 96;
  c.attention.window = 77;
  c.tie_word_embeddings = true;
  c.bos_token_id = -1;
  const DecoderConfig again = config(dump(hub::config_json(c, DType::bf16), 2));
  CHECK(again.eos_token_ids == c.eos_token_ids);
  CHECK(again.attention.head_dim == 96);
  CHECK(again.attention.window == 77);
  CHECK(again.tie_word_embeddings);
  CHECK(again.bos_token_id == -1);
  CHECK(again.attention.rope.theta == c.attention.rope.theta);
  CHECK(again.rms_norm_eps == c.rms_norm_eps);
}

TEST_CASE("Ends of text that generation_config.json names are added") {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "config.json", kMixtral);
  CHECK(hub::load_config(folder.path()).eos_token_ids == std::vector<std::int32_t>{2});
  test::write_bytes(folder / "generation_config.json", R"({"eos_token_id": [5, 2]})");
  CHECK(hub::load_config(folder.path()).eos_token_ids == std::vector<std::int32_t>{2, 5});
}
