// SPDX-License-Identifier: Apache-2.0
// What a plan makes of one tensor of a checkpoint, or of one module of an adapter: it stays, it
// goes with its expert, it is renamed, or it keeps the kept experts' part of it.
//   model.layers.3.mlp.experts.5.up_proj.weight  -> ...experts.2.up_proj.weight, or dropped
//   model.layers.3.mlp.gate.weight               -> the rows of the kept experts
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/pruned_tensor.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/prune/plan.hpp>

namespace espalier::prune {

/// The name in the pruned model; none for what is dropped with its expert.
[[nodiscard]] inline std::optional<std::string> pruned_name(const ExpertNames& names,
                                                            const std::string& name,
                                                            const Plan& plan) {
  const std::optional<ExpertTensor> t = names.find(name);
  if (!t || t->expert < 0) return name;
  const auto layer = static_cast<std::size_t>(t->layer);
  if (t->mtp || layer >= plan.keep.size()) return name;
  if (!plan.keeps(layer, t->expert)) return std::nullopt;
  return ExpertNames::renumbered(name, *t, plan.new_id(layer, t->expert));
}

/// The axis along which only the kept experts stay; -1: the tensor stays whole, or goes.
[[nodiscard]] inline int sliced_axis(const hub::Checkpoint& base, const io::TensorInfo& info,
                                     const Plan& plan) {
  const std::optional<ExpertTensor> t = base.expert_names().find(info.name);
  if (!t || t->expert >= 0 || t->mtp) return -1;
  if (static_cast<std::size_t>(t->layer) >= plan.keep.size()) return -1;
  const bool has_axis = std::cmp_less(t->axis, info.shape.size());
  return has_axis && info.shape[static_cast<std::size_t>(t->axis)] == base.mixture().experts
             ? t->axis
             : -1;
}

/// As the tensor will be: renamed, or with fewer experts. None when it is dropped.
[[nodiscard]] inline std::optional<io::TensorSpec> pruned_spec(const hub::Checkpoint& base,
                                                               const io::TensorInfo& info,
                                                               const Plan& plan) {
  const std::optional<std::string> name = pruned_name(base.expert_names(), info.name, plan);
  if (!name) return std::nullopt;
  io::TensorSpec spec = info;
  spec.name = *name;
  const int axis = sliced_axis(base, info, plan);
  if (axis >= 0) {
    const auto layer = static_cast<std::size_t>(base.expert_names().find(info.name)->layer);
    std::int64_t& extent = spec.shape[static_cast<std::size_t>(axis)];
    spec.bytes = info.bytes / static_cast<std::size_t>(extent) * plan.keep[layer].size();
    extent = static_cast<std::int64_t>(plan.keep[layer].size());
  }
  return spec;
}

/// Calls `body(data, bytes)` over what the pruned checkpoint holds of base tensor `source`.
template <class Body>
void for_each_kept_piece(const hub::Checkpoint& base, const Plan& plan, const std::string& source,
                         Body&& body) {
  const io::SafetensorsFile& file = base.shard_of(source).content;
  const io::TensorInfo& info = base.at(source);
  const int axis = sliced_axis(base, info, plan);
  if (axis < 0) {
    file.for_each_piece(info, body);
    return;
  }
  // [before, E, after]: per index before the axis, a run of bytes per expert.
  const auto layer = static_cast<std::size_t>(base.expert_names().find(source)->layer);
  std::size_t before = 1;
  for (int i = 0; i < axis; ++i)
    before *= static_cast<std::size_t>(info.shape[static_cast<std::size_t>(i)]);
  const auto experts = static_cast<std::size_t>(info.shape[static_cast<std::size_t>(axis)]);
  const std::size_t run = info.bytes / before / experts;
  constexpr std::size_t kPiece = std::size_t{16} << 20;
  std::vector<char> piece(std::min(run, kPiece));
  for (std::size_t b = 0; b < before; ++b) {
    for (const int e : plan.keep[layer]) {
      const std::size_t at = info.offset + (b * experts + static_cast<std::size_t>(e)) * run;
      for (std::size_t done = 0; done < run; done += piece.size()) {
        const std::size_t n = std::min(piece.size(), run - done);
        file.read(at + done, piece.data(), n);
        body(static_cast<const void*>(piece.data()), n);
      }
    }
  }
}

}  // namespace espalier::prune
