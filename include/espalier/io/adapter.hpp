// SPDX-License-Identifier: Apache-2.0
// A PEFT adapter folder: adapter_config.json and adapter_model.safetensors, in the layout of
// transformers 4 (one pair A [r, in], B [out, r] per module and expert):
//   base_model.model.model.layers.0.block_sparse_moe.experts.3.w1.lora_A.weight
// In memory the prefix "base_model.model." is removed, so modules are named like their weights.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/adapter.hpp is host-only; include it from a .cpp"
#endif

#include <map>

#include <espalier/core/inline.hpp>
#include <espalier/io/adapter_config.hpp>
#include <espalier/io/safetensors.hpp>
#include <espalier/io/safetensors_writer.hpp>
#include <espalier/tensor/finite.hpp>

namespace espalier::io {

inline constexpr const char* kAdapterConfigFile = "adapter_config.json";
inline constexpr const char* kAdapterTensorFile = "adapter_model.safetensors";
inline constexpr std::string_view kAdapterPrefix = "base_model.model.";

/// ΔW = scale · B A
struct LoraFactors {
  AnyTensor a;  // [r, in]
  AnyTensor b;  // [out, r]
  double scale = 0;

  explicit operator bool() const { return static_cast<bool>(a); }
};

struct Adapter {
  AdapterConfig config;
  /// By module: "model.layers.0.self_attn.q_proj". Shares the mapped file.
  std::map<std::string, LoraFactors, std::less<>> modules;

  /// Empty if the adapter does not cover this module.
  LoraFactors find(std::string_view module) const {
    const auto it = modules.find(module);
    return it == modules.end() ? LoraFactors{} : it->second;
  }
  /// By parameter: "model.layers.0.self_attn.q_proj.lora_A.weight". @throws FormatError
  AnyTensor parameter(std::string_view name) const {
    for (const char* part : {".lora_A.weight", ".lora_B.weight"}) {
      if (!name.ends_with(part)) continue;
      const LoraFactors f = find(name.substr(0, name.size() - 14));
      if (f) return part[6] == 'A' ? f.a : f.b;
    }
    throw FormatError(espalier::detail::concat({"the adapter has no tensor \"", name, "\""}));
  }
};

namespace detail {

inline void read_adapter_tensor(Adapter& adapter, const SafetensorsFile& file,
                                const TensorInfo& info) {
  const auto refuse = [&](const auto&... why) {
    throw FormatError(
        espalier::detail::concat({file.path().string(), ": tensor \"", info.name, "\": ", why...}));
  };
  std::string_view name = info.name;
  if (name.starts_with(kAdapterPrefix)) name.remove_prefix(kAdapterPrefix.size());
  const bool is_a = name.ends_with(".lora_A.weight");
  if (!is_a && !name.ends_with(".lora_B.weight")) {
    refuse("expected a name that ends in .lora_A.weight or .lora_B.weight");
  }
  if (info.shape.size() != 2) refuse("is ", shape_text(info), ", expected a matrix");
  const std::optional<DType> dtype = dtype_of_type(info.type);
  const bool floating =
      dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f16 || dtype == DType::f64;
  if (!floating) refuse("has dtype ", info.type, ", expected F32, BF16, F16 or F64");
  LoraFactors& factors = adapter.modules[std::string(name.substr(0, name.size() - 14))];
  AnyTensor& slot = is_a ? factors.a : factors.b;
  if (slot) refuse("stands twice, with and without the prefix ", kAdapterPrefix);
  slot = file.tensor(info);
}

}  // namespace detail

/// @throws IoError, FormatError naming the file, and the key or the tensor
[[nodiscard]] ESP_INLINE Adapter read_adapter(const std::filesystem::path& folder) {
  ESP_REQUIRE(std::filesystem::exists(folder / kAdapterTensorFile), IoError, folder.string(),
              ": has no ", kAdapterTensorFile,
              "; expected the folder of a PEFT adapter whose training is done");
  Adapter adapter;
  adapter.config = parse_adapter_config(read_json(folder / kAdapterConfigFile));
  const SafetensorsFile file(folder / kAdapterTensorFile);
  for (const TensorInfo& info : file.tensors()) detail::read_adapter_tensor(adapter, file, info);
  ESP_REQUIRE(!adapter.modules.empty(), FormatError, file.path().string(), ": has no tensors");
  for (auto& [module, f] : adapter.modules) {
    ESP_REQUIRE(f.a && f.b, FormatError, file.path().string(), ": module \"", module,
                "\" has only ", f.a ? "lora_A" : "lora_B", "; expected both lora_A and lora_B");
    const std::int64_t rank = adapter.config.rank_of(module);
    ESP_REQUIRE(f.a.shape(0) == rank && f.b.shape(1) == rank, FormatError, file.path().string(),
                ": module \"", module, "\": lora_A is ", f.a.shape(), ", lora_B is ", f.b.shape(),
                ", expected rank ", rank, " by ", kAdapterConfigFile);
    f.scale = adapter.config.scale(module, rank);
  }
  return adapter;
}

/// Writes both files into `folder`, which is created if missing. Each file appears when complete,
/// the tensors last. Names are those of `Adapter::parameter`; values are stored as f32.
/// @throws Error for a value that is not finite, before anything is written; IoError
ESP_INLINE void write_adapter(const std::filesystem::path& folder, const AdapterConfig& config,
                              const std::vector<std::pair<std::string, AnyTensor>>& tensors) {
  for (const auto& [name, t] : tensors) {
    require_finite((folder / kAdapterTensorFile).string(), name, t);
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) detail::throw_errno(folder, "create", error.value());
  write_text(folder / kAdapterConfigFile, dump(adapter_config_json(config), 2) + "\n");
  std::vector<std::pair<std::string, AnyTensor>> stored;
  for (const auto& [name, t] : tensors) {
    stored.emplace_back(std::string(kAdapterPrefix) + name,
                        t.dtype() == DType::f32 ? t : AnyTensor(converted<float>(t)));
  }
  save_safetensors(folder / kAdapterTensorFile, stored);
}

}  // namespace espalier::io
