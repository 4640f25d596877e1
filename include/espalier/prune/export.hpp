// SPDX-License-Identifier: Apache-2.0
// Writes a checkpoint without the experts that a plan drops. Copies bytes in pieces, never a whole
// shard: memory stays small for a model of any size. Kept experts are renumbered 0..K-1, together
// with the scales and zeros of quantized weights. Routers and tensors that hold all experts keep
// the rows of the kept experts. Every other byte is copied. Softmax over the kept logits equals
// softmax over all logits with the dropped ones at -inf, so routing among kept experts is
// unchanged.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/export.hpp is host-only; include it from a .cpp"
#endif

#include <functional>

#include <espalier/hub/fingerprint.hpp>
#include <espalier/io/atomic_folder.hpp>
#include <espalier/io/checkpoint_writer.hpp>
#include <espalier/io/companions.hpp>
#include <espalier/io/sha256.hpp>
#include <espalier/prune/config_edit.hpp>
#include <espalier/prune/pruned_tensor.hpp>

namespace espalier::prune {

enum class ShardLayout {
  standard,      // every tensor stays in the shard of the same name
  consolidated,  // new shards, filled as transformers' save_pretrained does
};

/// What an export will write.
struct Export {
  std::vector<io::ShardSpec> shards;
  std::map<std::string, std::string> sources;  // new tensor name -> name in the base
  std::size_t bytes = 0;                       // of all tensors
  std::size_t base_bytes = 0;
  std::size_t dropped_tensors = 0;    // with their experts
  std::vector<std::string> left_out;  // tensors of multi-token prediction, which the plan left out
};

namespace detail {

/// New shards, in the order of a state dict; tensors that the model does not use come last.
inline std::vector<io::ShardSpec> consolidated_shards(
    const hub::Checkpoint& base, std::map<std::string, io::TensorSpec> specs,
    const std::map<std::string, std::string>& sources, std::size_t max_shard_bytes) {
  std::vector<io::TensorSpec> ordered;
  const auto take = [&](const std::string& name) {
    const auto it = specs.find(name);
    if (it == specs.end()) return;
    ordered.push_back(it->second);
    specs.erase(it);
  };
  if (base.computable()) {
    DecoderConfig config = base.config();
    for (const TensorPlace& t : stored_tensors(config)) take(t.name);
  } else {
    std::map<std::string, std::string> target;  // name in the base -> new tensor name
    for (const auto& [name, source] : sources) target[source] = name;
    for (const std::string& name : base.names()) {
      if (const auto it = target.find(name); it != target.end()) take(it->second);
    }
  }
  while (!specs.empty()) take(specs.begin()->first);
  return io::split_into_shards(ordered, max_shard_bytes);
}

}  // namespace detail

/// @throws FormatError when the plan does not fit the checkpoint
[[nodiscard]] inline Export plan_export(const hub::Checkpoint& base, const Plan& plan,
                                        ShardLayout layout, std::size_t max_shard_bytes,
                                        const std::string& plan_source) {
  check_plan_fits(plan, base.mixture(), plan_source);
  check_exportable(plan, base.mixture(), plan_source);
  Export out;
  std::map<std::string, io::TensorSpec> specs;
  for (const hub::Checkpoint::Shard& shard : base.shards()) {
    io::ShardSpec target{shard.file, {}, 0};
    for (const io::TensorInfo& info : shard.content.tensors()) {
      out.base_bytes += info.bytes;
      const std::optional<io::TensorSpec> spec = pruned_spec(base, info, plan);
      if (!spec) {
        if (is_left_out(base, info.name, plan)) {
          out.left_out.push_back(info.name);
        } else {
          ++out.dropped_tensors;
        }
        continue;
      }
      out.bytes += spec->bytes;
      out.sources[spec->name] = info.name;
      specs[spec->name] = *spec;
      target.tensors.push_back(*spec);
      target.bytes += spec->bytes;
    }
    if (!target.tensors.empty()) out.shards.push_back(std::move(target));
  }
  if (layout == ShardLayout::consolidated) {
    out.shards = detail::consolidated_shards(base, std::move(specs), out.sources, max_shard_bytes);
  }
  return out;
}

/// The plan with the base in its provenance: the fingerprint of its weights (hub/fingerprint.hpp),
/// the sha256 of its config.json and index.
[[nodiscard]] inline Plan with_base_provenance(Plan plan, const hub::Checkpoint& base) {
  const std::filesystem::path index = base.folder() / io::kIndexFile;
  if (!plan.provenance.is_object()) plan.provenance = io::Json::object();
  plan.provenance["base_config_sha256"] = io::sha256(io::read_text(base.folder() / "config.json"));
  plan.provenance["base_fingerprint"] = hub::fingerprint_of_weights(base);
  if (base.sharded()) plan.provenance["base_index_sha256"] = io::sha256(io::read_text(index));
  return plan;
}

/// Writes the checkpoint folder `output`; the folder appears once it is complete. `progress` gets
/// the bytes written since its last call, and may throw to stop.
/// @throws UsageError if `output` and the base are not apart; IoError when the folder exists, the
/// disk is full, or a file cannot be read
inline void write_export(const hub::Checkpoint& base, const Plan& plan, const Export& what,
                         const std::filesystem::path& output,
                         const std::function<void(std::size_t)>& progress) {
  io::require_apart(output, base.folder());
  io::AtomicFolder folder(output);
  io::CheckpointWriter writer(folder.path(), what.shards,
                              io::companion_bytes(base.folder(), {"config.json", kPlanFile}));
  for (const io::ShardSpec& shard : writer.shards()) {
    for (const io::TensorSpec& t : shard.tensors) {
      for_each_kept_piece(base, plan, what.sources.at(t.name),
                          [&](const void* data, std::size_t bytes) {
                            writer.append(t.name, data, bytes);
                            if (progress) progress(bytes);
                          });
    }
  }
  writer.commit();
  std::vector<std::string> own = {"config.json", kPlanFile};
  for (const auto& entry : std::filesystem::directory_iterator(base.folder())) {
    const std::string name = entry.path().filename().string();
    if (!has_patterns(name)) continue;
    io::write_text(folder.path() / name, pruned_patterns(base, plan, name));
    own.push_back(name);
  }
  io::copy_companions(base.folder(), folder.path(), own);
  io::write_text(folder.path() / kPlanFile, plan_json(with_base_provenance(plan, base)));
  const std::filesystem::path config = base.folder() / "config.json";
  io::write_text(folder.path() / "config.json", pruned_config(base, plan, io::read_text(config)));
  folder.commit();
}

}  // namespace espalier::prune
