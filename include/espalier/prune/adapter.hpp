// SPDX-License-Identifier: Apache-2.0
// Prunes a LoRA adapter by the plan of its base: factors of dropped experts are removed, factors of
// kept experts renumbered, the router's B [E, r] keeps the rows of the kept experts. The new
// adapter on the pruned base computes what the old adapter did on the base with the dropped experts
// masked.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/adapter.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/io/adapter.hpp>
#include <espalier/io/atomic_folder.hpp>
#include <espalier/io/companions.hpp>
#include <espalier/io/safetensors_writer.hpp>
#include <espalier/prune/pruned_tensor.hpp>

namespace espalier::prune {

namespace detail {
/// The model as the plan describes it; adapters are on layers only, so that is enough.
inline hub::Mixture mixture_of_plan(const Plan& plan) {
  hub::Mixture mixture;
  mixture.layers = static_cast<std::int64_t>(plan.keep.size());
  return mixture;
}
}  // namespace detail

/// @throws FormatError when nothing is left of the adapter
[[nodiscard]] inline io::Adapter prune_adapter(const io::Adapter& adapter, const ExpertNames& names,
                                               const Plan& plan) {
  const hub::Mixture mixture = detail::mixture_of_plan(plan);
  io::Adapter out;
  out.config = adapter.config;
  for (const auto& [module, factors] : adapter.modules) {
    // ExpertNames reads names of tensors: a dot behind the module's name makes it one.
    const std::optional<std::string> dotted = pruned_name(names, mixture, module + ".", plan);
    if (!dotted) continue;
    io::LoraFactors kept = factors;
    const std::optional<ExpertTensor> part = names.find(module + ".");
    const std::vector<int>* kept_here = part ? kept_of(mixture, *part, plan) : nullptr;
    if (kept_here != nullptr && part->expert < 0) {
      const std::vector<int>& keep = *kept_here;
      ESP_REQUIRE(keep.back() < factors.b.shape(0), FormatError, module, ": lora_B is ",
                  factors.b.shape(), ", the plan keeps expert ", keep.back());
      kept.b = AnyTensor(Shape{static_cast<std::int64_t>(keep.size()), factors.b.shape(1)},
                         factors.b.dtype());
      const std::size_t row = factors.b.size_bytes() / static_cast<std::size_t>(factors.b.shape(0));
      for (std::size_t i = 0; i < keep.size(); ++i) {
        std::memcpy(kept.b.bytes() + i * row,
                    factors.b.bytes() + static_cast<std::size_t>(keep[i]) * row, row);
      }
    }
    out.modules[dotted->substr(0, dotted->size() - 1)] = kept;
  }
  ESP_REQUIRE(!out.modules.empty(), FormatError,
              "the plan drops every module that the adapter adapts");
  return out;
}

namespace detail {
/// Replaces patterns and targets that name experts by number, which would now match other experts,
/// by full module names. Everything else in the file stays.
inline io::Json pruned_adapter_config(io::Json json, const io::Adapter& before,
                                      const io::Adapter& after, const ExpertNames& names,
                                      const Plan& plan) {
  const io::AdapterConfig& c = before.config;
  const hub::Mixture mixture = mixture_of_plan(plan);
  io::Json ranks = io::Json::object(), alphas = io::Json::object(), targets = io::Json::array();
  for (const auto& [module, factors] : before.modules) {
    const std::optional<std::string> dotted = pruned_name(names, mixture, module + ".", plan);
    if (!dotted) continue;
    const std::string name = dotted->substr(0, dotted->size() - 1);
    if (c.rank_of(module) != c.r) ranks[name] = c.rank_of(module);
    if (c.alpha_of(module) != c.alpha) alphas[name] = c.alpha_of(module);
  }
  for (const auto& [module, factors] : after.modules) targets.push_back(module);
  if (!c.rank_pattern.empty()) json["rank_pattern"] = ranks;
  if (!c.alpha_pattern.empty()) json["alpha_pattern"] = alphas;
  for (const std::string& target : c.target_modules) {
    if (target.find("experts") != std::string::npos) json["target_modules"] = targets;
  }
  return json;
}
}  // namespace detail

/// Writes the adapter folder `output`; it appears once it is complete. Values keep their type.
inline void write_pruned_adapter(const std::filesystem::path& folder, const io::Adapter& adapter,
                                 const ExpertNames& names, const Plan& plan,
                                 const std::filesystem::path& output) {
  const io::Adapter pruned = prune_adapter(adapter, names, plan);
  io::require_apart(output, folder);
  io::AtomicFolder building(output);
  io::copy_companions(folder, building.path(), {io::kAdapterConfigFile, kPlanFile});
  const std::string text = io::read_text(folder / io::kAdapterConfigFile);
  const io::Json json = io::parse_json(text, (folder / io::kAdapterConfigFile).string());
  const io::Json config = detail::pruned_adapter_config(json, adapter, pruned, names, plan);
  io::write_text(building.path() / io::kAdapterConfigFile,
                 config == json ? text : io::dump_python(config, 2) + "\n");
  io::write_text(building.path() / kPlanFile, plan_json(plan));
  std::vector<std::pair<std::string, AnyTensor>> tensors;
  for (const auto& [module, f] : pruned.modules) {
    const std::string name = std::string(io::kAdapterPrefix) + module;
    tensors.emplace_back(name + ".lora_A.weight", f.a);
    tensors.emplace_back(name + ".lora_B.weight", f.b);
  }
  io::save_safetensors(building.path() / io::kAdapterTensorFile, tensors);
  building.commit();
}

}  // namespace espalier::prune
