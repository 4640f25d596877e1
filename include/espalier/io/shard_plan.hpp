// SPDX-License-Identifier: Apache-2.0
// Which tensors a checkpoint has, and how they fall into shards. Order and greedy rule are those of
// transformers' save_pretrained, so the same model gives the same shards: Mixtral 8x7B in bf16 is
// 19 files at the default of 5 GB.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/shard_plan.hpp is host-only; include it from a .cpp"
#endif

#include <cctype>
#include <charconv>
#include <cstdio>

#include <espalier/core/inline.hpp>
#include <espalier/io/tensor_spec.hpp>
#include <espalier/models/mixtral_config.hpp>

namespace espalier::io {

inline constexpr std::size_t kDefaultShardBytes = 5'000'000'000;

/// "5GB" (10^9), "500MB", "64KB", "5GiB" (2^30), "MiB", "KiB", "TB", "123" or "123B" in bytes;
/// letters of any case, fractions such as "1.5GB" too.
/// @throws UsageError
[[nodiscard]] ESP_INLINE std::size_t parse_bytes(std::string_view text) {
  double number = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), number, std::chars_format::fixed);
  std::string unit;
  for (const char* p = end; p != text.data() + text.size(); ++p) {
    if (*p != ' ') unit += static_cast<char>(std::tolower(static_cast<unsigned char>(*p)));
  }
  struct Unit {
    std::string_view name;
    double bytes;
  };
  static constexpr Unit kUnits[] = {
      {"", 1},      {"b", 1},        {"kb", 1e3},     {"mb", 1e6},     {"gb", 1e9},
      {"tb", 1e12}, {"kib", 0x1p10}, {"mib", 0x1p20}, {"gib", 0x1p30}, {"tib", 0x1p40}};
  for (const Unit& u : kUnits) {
    if (error != std::errc() || u.name != unit) continue;
    const double bytes = number * u.bytes;
    ESP_REQUIRE(bytes >= 1 && bytes < 0x1p62, UsageError, "size \"", text,
                "\" is out of range, expected at least one byte");
    return static_cast<std::size_t>(bytes);
  }
  throw UsageError(espalier::detail::concat({"size \"", text,
                                             "\" is not understood; expected a number and a unit, "
                                             "such as 5GB, 500MB, 4GiB"}));
}

/// Every tensor of a model, in the order of its state dict: Mixtral's names, or Llama's when there
/// are no experts.
[[nodiscard]] ESP_INLINE std::vector<TensorSpec> checkpoint_tensors(const MixtralConfig& c,
                                                                    DType dtype) {
  std::vector<TensorSpec> list;
  const auto add = [&](std::string name, const Shape& shape) {
    list.push_back(make_spec(std::move(name), dtype, shape));
  };
  const std::int64_t H = c.hidden_size, F = c.intermediate_size;
  const std::int64_t queries = c.num_attention_heads * c.head_dim;
  const std::int64_t keys = c.num_key_value_heads * c.head_dim;
  add("model.embed_tokens.weight", {c.vocab_size, H});
  for (std::int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    add(prefix + "self_attn.q_proj.weight", {queries, H});
    add(prefix + "self_attn.k_proj.weight", {keys, H});
    add(prefix + "self_attn.v_proj.weight", {keys, H});
    add(prefix + "self_attn.o_proj.weight", {H, queries});
    if (c.num_local_experts == 0) {
      add(prefix + "mlp.gate_proj.weight", {F, H});
      add(prefix + "mlp.up_proj.weight", {F, H});
      add(prefix + "mlp.down_proj.weight", {H, F});
    } else {
      add(prefix + "block_sparse_moe.gate.weight", {c.num_local_experts, H});
    }
    for (std::int64_t e = 0; e < c.num_local_experts; ++e) {
      const std::string expert = prefix + "block_sparse_moe.experts." + std::to_string(e) + ".";
      add(expert + "w1.weight", {F, H});
      add(expert + "w2.weight", {H, F});
      add(expert + "w3.weight", {F, H});
    }
    add(prefix + "input_layernorm.weight", {H});
    add(prefix + "post_attention_layernorm.weight", {H});
  }
  add("model.norm.weight", {H});
  if (!c.tie_word_embeddings) add("lm_head.weight", {c.vocab_size, H});
  return list;
}

struct ShardPlan {
  std::string file;
  std::vector<TensorSpec> tensors;
  std::size_t bytes = 0;  // of the tensors
};

/// Fills shards in order up to `max_bytes`. A tensor that is larger alone gets a shard of its own,
/// in front of the one being filled.
[[nodiscard]] ESP_INLINE std::vector<ShardPlan> plan_shards(const std::vector<TensorSpec>& tensors,
                                                            std::size_t max_bytes) {
  std::vector<ShardPlan> shards;
  ShardPlan current;
  for (const TensorSpec& t : tensors) {
    if (t.bytes > max_bytes) {
      shards.push_back({"", {t}, t.bytes});
      continue;
    }
    if (current.bytes + t.bytes > max_bytes) {
      shards.push_back(std::move(current));
      current = {};
    }
    current.tensors.push_back(t);
    current.bytes += t.bytes;
  }
  if (!current.tensors.empty() || shards.empty()) shards.push_back(std::move(current));
  for (std::size_t i = 0; i < shards.size(); ++i) {
    char name[64];
    std::snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", i + 1, shards.size());
    shards[i].file = shards.size() == 1 ? "model.safetensors" : name;
    sort_for_alignment(shards[i].tensors);
  }
  return shards;
}

}  // namespace espalier::io
