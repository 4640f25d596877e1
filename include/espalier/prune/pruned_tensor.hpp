// SPDX-License-Identifier: Apache-2.0
// Applies a plan to one tensor of a checkpoint, or one module of an adapter: the tensor is copied,
// dropped with its expert, renamed, or cut to the kept experts.
//   model.layers.3.mlp.experts.5.up_proj.weight  -> ...experts.2.up_proj.weight, or dropped
//   model.layers.3.mlp.gate.weight               -> the rows of the kept experts
// Layers of multi-token prediction that hold experts are left out where the plan does not list
// them: with the old number of experts they would not fit the new config.json.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/pruned_tensor.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/prune/plan.hpp>

namespace espalier::prune {

/// The kept experts of the tensor's layer; nullptr where the plan does not change that layer.
[[nodiscard]] inline const std::vector<int>* kept_of(const hub::Mixture& mixture,
                                                     const ExpertTensor& t, const Plan& plan) {
  const std::size_t entry = mixture.entry_of(t);
  return entry < plan.keep.size() && !plan.keep[entry].empty() ? &plan.keep[entry] : nullptr;
}

/// Are the layers of multi-token prediction left out?
[[nodiscard]] inline bool leaves_prediction_out(const hub::Mixture& mixture, const Plan& plan) {
  return !mixture.prediction.empty() && std::cmp_equal(plan.keep.size(), mixture.layers);
}
[[nodiscard]] inline bool is_left_out(const hub::Checkpoint& base, const std::string& name,
                                      const Plan& plan) {
  if (!leaves_prediction_out(base.mixture(), plan)) return false;
  const ExpertNames& names = base.expert_names();
  return names.is_mtp(name) || names.layer_of(name) >= base.mixture().layers;
}

/// The name in the pruned model; none for a tensor of a dropped expert.
[[nodiscard]] inline std::optional<std::string> pruned_name(const ExpertNames& names,
                                                            const hub::Mixture& mixture,
                                                            const std::string& name,
                                                            const Plan& plan) {
  const std::optional<ExpertTensor> t = names.find(name);
  if (!t || t->expert < 0) return name;
  if (kept_of(mixture, *t, plan) == nullptr) return name;
  const std::size_t entry = mixture.entry_of(*t);
  if (!plan.keeps(entry, t->expert)) return std::nullopt;
  return ExpertNames::renumbered(name, *t, plan.new_id(entry, t->expert));
}

/// The axis along which the tensor is cut to the kept experts, and the kept experts.
struct ExpertSlice {
  int axis = -1;  // -1: the tensor stays whole, or goes
  const std::vector<int>* kept = nullptr;
};
[[nodiscard]] inline ExpertSlice expert_slice(const hub::Checkpoint& base,
                                              const io::TensorInfo& info, const Plan& plan) {
  const std::optional<ExpertTensor> t = base.expert_names().find(info.name);
  if (!t || t->expert >= 0) return {};
  const std::vector<int>* kept = kept_of(base.mixture(), *t, plan);
  const bool has_axis = std::cmp_less(t->axis, info.shape.size()) &&
                        info.shape[static_cast<std::size_t>(t->axis)] == base.mixture().experts;
  if (kept == nullptr || !has_axis) return {};
  return {t->axis, kept};
}

/// Name, type and shape in the pruned model. None where the tensor is dropped or left out.
[[nodiscard]] inline std::optional<io::TensorSpec> pruned_spec(const hub::Checkpoint& base,
                                                               const io::TensorInfo& info,
                                                               const Plan& plan) {
  if (is_left_out(base, info.name, plan)) return std::nullopt;
  const std::optional<std::string> name =
      pruned_name(base.expert_names(), base.mixture(), info.name, plan);
  if (!name) return std::nullopt;
  io::TensorSpec spec = info;
  spec.name = *name;
  const ExpertSlice slice = expert_slice(base, info, plan);
  if (slice.axis >= 0) {
    std::int64_t& extent = spec.shape[static_cast<std::size_t>(slice.axis)];
    spec.bytes = info.bytes / static_cast<std::size_t>(extent) * slice.kept->size();
    extent = static_cast<std::int64_t>(slice.kept->size());
  }
  return spec;
}

/// Calls `body(data, bytes)` with the pieces of base tensor `source` that the pruned one keeps.
template <class Body>
void for_each_kept_piece(const hub::Checkpoint& base, const Plan& plan, const std::string& source,
                         Body&& body) {
  const io::SafetensorsFile& file = base.shard_of(source).content;
  const io::TensorInfo& info = base.at(source);
  const ExpertSlice slice = expert_slice(base, info, plan);
  if (slice.axis < 0) {
    file.for_each_piece(info, body);
    return;
  }
  // [before, E, after]: per index before the axis, a run of bytes per expert.
  std::size_t before = 1;
  for (int i = 0; i < slice.axis; ++i)
    before *= static_cast<std::size_t>(info.shape[static_cast<std::size_t>(i)]);
  const auto experts = static_cast<std::size_t>(info.shape[static_cast<std::size_t>(slice.axis)]);
  const std::size_t run = info.bytes / before / experts;
  ESP_REQUIRE(run * before * experts == info.bytes, FormatError, file.path().string(),
              ": tensor \"", source, "\" is ", info.type, " ", io::shape_text(info),
              ": its experts do not begin on whole bytes");
  constexpr std::size_t kPiece = std::size_t{16} << 20;
  std::vector<char> piece(std::min(run, kPiece));
  for (std::size_t b = 0; b < before; ++b) {
    for (const int e : *slice.kept) {
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
