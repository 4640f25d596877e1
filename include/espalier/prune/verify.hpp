// SPDX-License-Identifier: Apache-2.0
// Verifies a pruned checkpoint against its base and plan: every kept tensor equals its source byte
// for byte, routers have the rows of the kept experts, no tensor is missing or added, config.json
// and the index say what is there. Reads both checkpoints in pieces.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/verify.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>

#include <espalier/prune/export.hpp>

namespace espalier::prune {

struct Verification {
  std::vector<std::string> problems;  // empty: proven
  std::size_t tensors = 0, dropped_tensors = 0, left_out = 0, files = 0, bytes = 0;
};

namespace detail {

/// Compares a stream of pieces with a tensor of a file.
class BytesComparison {
 public:
  BytesComparison(const io::SafetensorsFile& file, const io::TensorInfo& info)
      : file_(file), info_(info) {}
  void piece(const void* data, std::size_t bytes) {
    if (!equal_ || bytes > info_.bytes - done_) {
      equal_ = false;
      return;
    }
    other_.resize(bytes);
    file_.read(info_.offset + done_, other_.data(), bytes);
    equal_ = std::memcmp(data, other_.data(), bytes) == 0;
    done_ += bytes;
  }
  bool equal() const { return equal_ && done_ == info_.bytes; }

 private:
  const io::SafetensorsFile& file_;
  const io::TensorInfo& info_;
  std::vector<char> other_;
  std::size_t done_ = 0;
  bool equal_ = true;
};

inline void verify_tensor(const hub::Checkpoint& base, const hub::Checkpoint& pruned,
                          const Plan& plan, const std::string& name, Verification& out) {
  const io::TensorInfo& from = base.at(name);
  const std::optional<io::TensorSpec> want = pruned_spec(base, from, plan);
  if (!want) {
    ++(is_left_out(base, name, plan) ? out.left_out : out.dropped_tensors);
    return;
  }
  ++out.tensors;
  const std::string label = "tensor \"" + want->name + "\" (\"" + name + "\" in the base)";
  const io::TensorInfo* found = pruned.find(want->name);
  if (found == nullptr) {
    out.problems.push_back(label + " is missing");
    return;
  }
  if (found->type != want->type || found->shape != want->shape) {
    out.problems.push_back(
        espalier::detail::concat({label, " is ", found->type, " ", io::shape_text(*found),
                                  ", expected ", want->type, " ", io::shape_text(*want)}));
    return;
  }
  BytesComparison comparison(pruned.shard_of(want->name).content, *found);
  for_each_kept_piece(base, plan, name,
                      [&](const void* data, std::size_t bytes) { comparison.piece(data, bytes); });
  if (!comparison.equal()) out.problems.push_back(label + " has other bytes");
  out.bytes += found->bytes;
}

/// Is the config that of the base, except for what the plan changes?
inline void verify_config(const hub::Checkpoint& base, const hub::Checkpoint& pruned,
                          const Plan& plan, Verification& out) {
  const io::Json want = io::parse_json(
      pruned_config(base, plan, io::read_text(base.folder() / "config.json")), "config.json");
  for (const io::Json::Member& m : want.members()) {
    const io::Json* found = pruned.config_json().find(m.key);
    if (found == nullptr) {
      out.problems.push_back("config.json: \"" + m.key + "\" is missing");
    } else if (!(*found == m.value)) {
      out.problems.push_back("config.json: \"" + m.key + "\" is " + io::dump(*found) +
                             ", expected " + io::dump(m.value));
    }
  }
  for (const io::Json::Member& m : pruned.config_json().members()) {
    if (want.find(m.key) == nullptr) {
      out.problems.push_back("config.json: \"" + m.key + "\" is not in the base");
    }
  }
}

/// Checks total_size and the metadata that loaders read.
inline void verify_index(const hub::Checkpoint& pruned, Verification& out) {
  for (const hub::Checkpoint::Shard& shard : pruned.shards()) {
    const auto& metadata = shard.content.metadata();
    const bool tagged = std::any_of(metadata.begin(), metadata.end(), [](const auto& entry) {
      return entry.first == "format" && entry.second == "pt";
    });
    if (!tagged) out.problems.push_back(shard.file + ": has no metadata {\"format\": \"pt\"}");
  }
  if (!pruned.sharded()) return;
  const io::Json index = io::read_json(pruned.folder() / io::kIndexFile);
  const io::Json* metadata = index.find_value("metadata");
  const io::Json* total = metadata == nullptr ? nullptr : metadata->find_value("total_size");
  if (total == nullptr || !(*total == io::Json(pruned.total_bytes()))) {
    out.problems.push_back(espalier::detail::concat(
        {io::kIndexFile, ": total_size is ", total == nullptr ? "missing" : io::dump(*total),
         ", the tensors have ", pruned.total_bytes(), " bytes"}));
  }
}

inline bool same_file(const std::filesystem::path& a, const std::filesystem::path& b) {
  const io::MappedFile x(a), y(b);
  return x.size() == y.size() &&
         (x.size() == 0 || std::memcmp(x.bytes().get(), y.bytes().get(), x.size()) == 0);
}

/// Are tokenizer, templates, subfolders and hidden files there, and unchanged?
inline void verify_companions(const hub::Checkpoint& checkpoint,
                              const std::filesystem::path& pruned, const Plan& plan,
                              Verification& out) {
  const std::filesystem::path& base = checkpoint.folder();
  for (const auto& relative : io::companions(base, {"config.json", kPlanFile})) {
    const bool top = !relative.has_parent_path();
    ++out.files;
    if (!std::filesystem::is_regular_file(pruned / relative)) {
      out.problems.push_back(relative.string() + " is missing");
    } else if (top && has_patterns(relative.string())) {
      if (io::read_text(pruned / relative) !=
          pruned_patterns(checkpoint, plan, relative.string())) {
        out.problems.push_back(relative.string() + " is not what the plan makes of the base's");
      }
    } else if (!same_file(base / relative, pruned / relative)) {
      out.problems.push_back(relative.string() + " differs from the base's");
    }
  }
}

}  // namespace detail

/// `progress` gets the number of base tensors compared so far, and may throw to stop.
[[nodiscard]] inline Verification verify_export(const hub::Checkpoint& base,
                                                const hub::Checkpoint& pruned, const Plan& plan,
                                                const std::string& plan_source,
                                                const std::function<void(std::size_t)>& progress) {
  check_plan_fits(plan, base.mixture(), plan_source);
  check_exportable(plan, base.mixture(), plan_source);
  Verification out;
  std::size_t looked_at = 0;
  for (const std::string& name : base.names()) {
    detail::verify_tensor(base, pruned, plan, name, out);
    if (progress) progress(++looked_at);
  }
  std::map<std::string, bool> known;
  for (const std::string& name : base.names()) {
    if (const auto kept = pruned_spec(base, base.at(name), plan)) known[kept->name] = true;
  }
  for (const std::string& name : pruned.names()) {
    if (known.count(name) == 0) {
      out.problems.push_back("tensor \"" + name + "\" has no source in the base");
    }
  }
  detail::verify_config(base, pruned, plan, out);
  detail::verify_index(pruned, out);
  detail::verify_companions(base, pruned.folder(), plan, out);
  return out;
}

/// Compares two checkpoints of one model, sharded differently: the same tensors bit for bit, the
/// same config.
[[nodiscard]] inline Verification verify_same(const hub::Checkpoint& a, const hub::Checkpoint& b,
                                              const std::function<void(std::size_t)>& progress) {
  Verification out;
  for (const std::string& name : a.names()) {
    ++out.tensors;
    const io::TensorInfo &x = a.at(name), *y = b.find(name);
    if (y == nullptr || x.type != y->type || x.shape != y->shape) {
      out.problems.push_back("tensor \"" + name + "\" is " +
                             (y == nullptr ? "missing" : "of another type or shape") + " in " +
                             b.folder().string());
      continue;
    }
    detail::BytesComparison comparison(b.shard_of(name).content, *y);
    a.shard_of(name).content.for_each_piece(
        x, [&](const void* data, std::size_t bytes) { comparison.piece(data, bytes); });
    out.bytes += x.bytes;
    if (!comparison.equal()) out.problems.push_back("tensor \"" + name + "\" has other bytes");
    if (progress) progress(out.tensors);
  }
  for (const std::string& name : b.names()) {
    if (a.find(name) == nullptr) {
      out.problems.push_back("tensor \"" + name + "\" is missing in " + a.folder().string());
    }
  }
  if (!(a.config_json() == b.config_json())) out.problems.push_back("config.json differs");
  detail::verify_index(b, out);
  return out;
}

}  // namespace espalier::prune
