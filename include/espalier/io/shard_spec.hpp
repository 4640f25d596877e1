// SPDX-License-Identifier: Apache-2.0
// Distributes the tensors of a checkpoint over shards. Order and greedy rule are those of
// transformers' save_pretrained, so the same model gives the same shards: Mixtral 8x7B in bf16 is
// 19 files at the default of 5 GB.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/shard_spec.hpp is host-only; include it from a .cpp"
#endif

#include <cctype>
#include <charconv>
#include <cstdio>

#include <espalier/core/inline.hpp>
#include <espalier/io/tensor_spec.hpp>

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

struct ShardSpec {
  std::string file;
  std::vector<TensorSpec> tensors;
  std::size_t bytes = 0;  // of the tensors
};

/// Fills shards in order up to `max_bytes`. A tensor that is larger alone gets a shard of its own,
/// in front of the one being filled.
[[nodiscard]] ESP_INLINE std::vector<ShardSpec> split_into_shards(
    const std::vector<TensorSpec>& tensors, std::size_t max_bytes) {
  std::vector<ShardSpec> shards;
  ShardSpec current;
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
