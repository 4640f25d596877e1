// SPDX-License-Identifier: Apache-2.0
// Opens a Hugging Face checkpoint folder as a model: finds its family and its experts and, for a
// family with a forward pass, checks that every tensor of the model exists with the right shape.
// Quantized checkpoints and families without a forward pass open too: their bytes can be listed,
// pruned and verified.
#pragma once

#ifdef __CUDACC__
#error "espalier/hub/checkpoint.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cstring>
#include <optional>

#include <espalier/hub/json_config.hpp>
#include <espalier/io/checkpoint_files.hpp>
#include <espalier/io/tensor_spec.hpp>
#include <espalier/models/families/expert_names.hpp>
#include <espalier/models/layout.hpp>

namespace espalier::hub {

/// A layer of multi-token prediction that holds experts. Such layers are numbered after the last
/// layer of the model, or from 0 under a prefix such as "mtp.".
struct PredictionLayer {
  int layer = 0;
  bool prefixed = false;
};

/// What pruning needs to know about the experts of a model.
struct Mixture {
  std::int64_t layers = 0;   // of the model, dense ones included
  std::int64_t experts = 0;  // per layer that has any; 0: a dense model
  std::int64_t top_k = 0;
  std::int64_t groups = 1, top_groups = 1;
  bool groups_by_best_two = false;  // a group's score is the sum of its two best, else its best
  std::vector<bool> sparse;         // [layers] true for a layer with experts
  std::vector<PredictionLayer> prediction;

  bool has(std::size_t layer) const { return layer < sparse.size() && sparse[layer]; }
  /// Index of the tensor's layer in a pruning plan, where layers of multi-token prediction follow
  /// those of the model.
  ESP_INLINE std::size_t entry_of(const ExpertTensor& t) const {
    if (!t.mtp && t.layer < layers) return static_cast<std::size_t>(t.layer);
    std::size_t i = 0;
    while (i < prediction.size() &&
           (prediction[i].layer != t.layer || prediction[i].prefixed != t.mtp)) {
      ++i;
    }
    return static_cast<std::size_t>(layers) + i;
  }
};

/// Derives the mixture from the configuration, without a look at the tensors.
[[nodiscard]] Mixture mixture_of(const DecoderConfig& c);

class Checkpoint : public io::CheckpointFiles {
 public:
  /// @throws IoError, FormatError naming the file, the tensor and what was expected
  explicit Checkpoint(const std::filesystem::path& folder);

  const Family& family() const { return *family_; }
  const ExpertNames& expert_names() const { return expert_names_; }
  const Mixture& mixture() const { return mixture_; }
  /// Every key of config.json that holds the number of experts; "a.b" is key b of object a.
  const std::vector<std::string>& count_keys() const { return count_keys_; }
  /// Inconsistencies that do not prevent using the checkpoint, one line each.
  const std::vector<std::string>& warnings() const { return warnings_; }
  /// True if this model has a forward pass here.
  bool computable() const { return config_.has_value(); }
  /// @throws UnsupportedError with the reason why this model has no forward pass
  const DecoderConfig& config() const {
    ESP_REQUIRE(computable(), UnsupportedError, why_not_);
    return *config_;
  }
  /// The reason why `config` throws; empty if it does not.
  const std::string& why_not_computable() const { return why_not_; }
  /// The element type of the embedding, which stands for the type of the whole checkpoint.
  DType dtype() const {
    return io::supported_dtype(at(family_->names.of(Part::embedding)), folder().string());
  }
  /// Names of tensors that the forward pass does not use; empty if there is no forward pass.
  const std::vector<std::string>& unused_tensors() const { return unused_; }

 private:
  void read_mixture();
  void read_groups();
  void find_count_keys();
  void find_experts();
  void require_apart();
  void find_own_head();
  void check_layout();
  void check_types();
  bool beyond_last_layer(std::string_view name) const;
  void refuse_beyond(const std::string& name, bool beyond) const;
  std::int64_t count_of(const std::vector<std::string>& keys) const;

  const Family* family_;
  ExpertNames expert_names_;
  Mixture mixture_;
  std::vector<std::string> count_keys_, warnings_;
  std::optional<DecoderConfig> config_;
  std::string why_not_;
  std::vector<std::string> unused_;
};

/// Lists the tensors of a model with configuration `c`, all of type `dtype`.
[[nodiscard]] std::vector<io::TensorSpec> tensor_specs(const DecoderConfig& c, DType dtype);

/// Requires a mixture of experts; `work` is the verb of the error message ("prune").
/// @throws FormatError for a dense model
void require_mixture(const Checkpoint& checkpoint, std::string_view work);

}  // namespace espalier::hub

#ifdef ESP_BODIES
namespace espalier::hub {

ESP_INLINE Mixture mixture_of(const DecoderConfig& c) {
  Mixture m;
  m.layers = c.num_hidden_layers;
  m.experts = c.mixture.experts;
  m.top_k = c.mixture.router.top_k;
  m.groups = c.mixture.router.groups;
  m.top_groups = c.mixture.router.top_groups;
  m.groups_by_best_two = c.mixture.router.group_score == RouterRule::GroupScore::top2_sum;
  for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) m.sparse.push_back(c.has_mixture(l));
  return m;
}

ESP_INLINE Checkpoint::Checkpoint(const std::filesystem::path& folder)
    : CheckpointFiles(folder), family_(&family_of(config_json())), expert_names_(*family_) {
  try {
    config_ = load_config(this->folder());
  } catch (const UnsupportedError& e) {
    why_not_ = e.what();
  }
  if (config_) mixture_ = mixture_of(*config_);
  if (!family_->expert_keys.empty()) read_mixture();
  if (config_) require_apart();
  if (config_) find_own_head();
  if (config_) check_layout();
  if (config_) check_types();
}

ESP_INLINE std::int64_t Checkpoint::count_of(const std::vector<std::string>& keys) const {
  for (const std::string& key : keys) {
    const io::Json* v = find_path(config_json(), key);
    if (v == nullptr || v->is_null()) continue;
    ESP_REQUIRE(v->as_int() >= 1 && v->as_int() <= 0xffff, FormatError, v->where(), ": ",
                v->as_int(), " is out of range");
    return v->as_int();
  }
  return 0;
}

ESP_INLINE void Checkpoint::read_mixture() {
  mixture_.layers = count_of({"num_hidden_layers", "text_config.num_hidden_layers"});
  for (const char* key : {"layers_block_type", "layer_types"}) {  // lists of nemotron_h
    const io::Json* types = config_json().find_value(key);
    if (mixture_.layers == 0 && types != nullptr && types->is_array())
      mixture_.layers = static_cast<std::int64_t>(types->size());
  }
  ESP_REQUIRE(mixture_.layers > 0, FormatError, config_json().where(),
              ": \"num_hidden_layers\" is missing");
  mixture_.experts = count_of(family_->expert_keys);
  mixture_.top_k = count_of(family_->top_k_keys);
  find_count_keys();
  if (!config_) read_groups();
  mixture_.sparse.assign(static_cast<std::size_t>(mixture_.layers), false);
  find_experts();
}

ESP_INLINE void Checkpoint::read_groups() {
  const io::Json* method = config_json().find_value("topk_method");
  const bool ungrouped =
      method != nullptr && method->is_string() && method->as_string() == "greedy";
  if (family_->groups_key.empty() || ungrouped) return;
  mixture_.groups = std::max<std::int64_t>(count_of({family_->groups_key}), 1);
  mixture_.top_groups = std::max<std::int64_t>(count_of({family_->top_groups_key}), 1);
  ESP_REQUIRE(mixture_.experts % mixture_.groups == 0, FormatError, config_json().where(), ": ",
              mixture_.experts, " experts in ", family_->groups_key, " ", mixture_.groups,
              " groups, expected equal groups");
  // Families that select experts by a biased score also score groups as DeepSeek-V3 does.
  mixture_.groups_by_best_two = !family_->names.pattern(Part::selection_bias).empty();
}

/// In some families transformers takes one of these keys as an alias of another. Families differ in
/// which key wins when a config has two, so all must hold the same number.
ESP_INLINE void Checkpoint::find_count_keys() {
  std::vector<std::string> keys = family_->expert_keys;
  for (const char* key :
       {"num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts"}) {
    for (const char* place : {"", "text_config."}) {
      const std::string path = std::string(place) + key;
      if (std::find(keys.begin(), keys.end(), path) == keys.end()) keys.push_back(path);
    }
  }
  for (const std::string& key : keys) {
    const io::Json* v = find_path(config_json(), key);
    if (v == nullptr || !v->is_integer()) continue;
    ESP_REQUIRE(count_keys_.empty() || v->as_int() == mixture_.experts, FormatError, v->where(),
                ": is ", v->as_int(), ", but ", count_keys_.front(), " is ", mixture_.experts,
                "; both name the number of experts, and loaders differ in which they read: make "
                "them equal");
    count_keys_.push_back(key);
  }
}

/// Clears config_ if one tensor holds all experts in a family that stores a tensor per expert.
/// transformers 5 fuses the experts in memory, and opens a checkpoint that was written like that.
/// Such a checkpoint can be pruned and verified, not computed with.
ESP_INLINE void Checkpoint::require_apart() {
  if (config_->mixture.experts == 0 || config_->mixture.storage != ExpertStorage::separate) return;
  for (const std::string& name : names()) {
    const std::optional<ExpertTensor> t = expert_names_.find(name);
    if (!t || t->expert >= 0 || !name.ends_with(".experts.gate_up_proj")) continue;
    why_not_ = shard_of(name).content.path().string() + ": tensor \"" + name +
               "\" holds all experts in one; such a checkpoint can be inspected, pruned and "
               "verified, not computed with. Opened and saved with transformers (save_pretrained) "
               "it has them apart";
    config_.reset();
    return;
  }
}

/// Uses a separate output head where config.json ties the head to the embedding but the files hold
/// a different tensor: transformers does the same.
ESP_INLINE void Checkpoint::find_own_head() {
  if (!config_->tie_word_embeddings) return;
  const std::string head = family_->names.of(Part::head),
                    embedding = family_->names.of(Part::embedding);
  if (find(head) == nullptr || find(embedding) == nullptr) return;
  const io::TensorInfo &a = at(head), &b = at(embedding);
  bool same = a.type == b.type && a.shape == b.shape;
  if (same) {
    std::vector<char> other;
    std::size_t done = 0;
    const io::SafetensorsFile& file = shard_of(embedding).content;
    shard_of(head).content.for_each_piece(a, [&](const void* data, std::size_t bytes) {
      if (!same) return;
      other.resize(bytes);
      file.read(b.offset + done, other.data(), bytes);
      same = std::memcmp(data, other.data(), bytes) == 0;
      done += bytes;
    });
  }
  if (same) return;
  config_->tie_word_embeddings = false;
  warnings_.push_back((this->folder() / "config.json").string() +
                      ": tie_word_embeddings is true, but \"" + head +
                      "\" is not the embedding; it is used as the head, as transformers does");
}

ESP_INLINE void Checkpoint::find_experts() {
  std::map<std::pair<bool, int>, std::vector<bool>> found;  // by layer: the experts that exist
  const auto text = [&](const ExpertTensor& t) {
    return std::string(t.mtp ? "prediction layer " : "layer ") + std::to_string(t.layer);
  };
  for (const std::string& name : names()) {
    const std::optional<ExpertTensor> t = expert_names_.find(name);
    if (!t) continue;
    const io::TensorInfo& info = at(name);
    refuse_beyond(name, !t->mtp && t->layer >= mixture_.layers && family_->mtp_key.empty());
    std::vector<bool>& experts = found[{t->mtp, t->layer}];
    const auto count = static_cast<std::size_t>(mixture_.experts);
    experts.resize(count);
    if (t->expert >= 0) {
      ESP_REQUIRE(t->expert < mixture_.experts, FormatError, shard_of(name).content.path().string(),
                  ": tensor \"", name, "\" belongs to an expert beyond the ", mixture_.experts,
                  " of config.json");
      experts[static_cast<std::size_t>(t->expert)] = true;
      continue;
    }
    const bool fits = std::cmp_less(t->axis, info.shape.size()) &&
                      info.shape[static_cast<std::size_t>(t->axis)] == mixture_.experts;
    const bool scalar =
        std::all_of(info.shape.begin(), info.shape.end(), [](std::int64_t n) { return n == 1; });
    ESP_REQUIRE(fits || scalar, FormatError, shard_of(name).content.path().string(), ": tensor \"",
                name, "\" is ", io::shape_text(info), ", expected ", mixture_.experts,
                " along axis ", t->axis, ", the experts of config.json");
    if (fits && !t->of_router()) experts.assign(count, true);
  }
  for (const auto& [place, experts] : found) {
    const auto& [mtp, layer] = place;
    if (std::none_of(experts.begin(), experts.end(), [](bool b) { return b; })) continue;
    const auto missing = std::find(experts.begin(), experts.end(), false);
    ESP_REQUIRE(missing == experts.end(), FormatError, folder().string(), ": ",
                text({.layer = layer, .mtp = mtp}), " has no tensors of expert ",
                missing - experts.begin(), "; config.json calls for ", mixture_.experts);
    if (mtp || layer >= mixture_.layers) {
      mixture_.prediction.push_back({layer, mtp});
    } else {
      mixture_.sparse[static_cast<std::size_t>(layer)] = true;
    }
  }
}

/// True if `name` belongs to a layer after the last one, in a family without multi-token
/// prediction.
ESP_INLINE bool Checkpoint::beyond_last_layer(std::string_view name) const {
  if (!family_->mtp_key.empty()) return false;
  const std::string_view pattern = family_->names.pattern(Part::input_norm);
  const std::string_view before = pattern.substr(0, pattern.find("{l}"));
  if (before.empty() || !name.starts_with(before)) return false;
  name.remove_prefix(before.size());
  return espalier::detail::take_number(name) >= config_->num_hidden_layers;
}

ESP_INLINE void Checkpoint::refuse_beyond(const std::string& name, bool beyond) const {
  ESP_REQUIRE(!beyond, FormatError, shard_of(name).content.path().string(), ": tensor \"", name,
              "\" does not belong to the model that config.json describes (", family_->model_type,
              ", ", mixture_.layers, " layers, ", mixture_.experts, " experts)");
}

ESP_INLINE void Checkpoint::check_layout() {
  const DecoderConfig& c = *config_;
  std::map<std::string_view, bool> known;
  const std::vector<TensorPlace> places = stored_tensors(c);
  for (const TensorPlace& want : places) {
    known[want.name] = true;
    const io::TensorInfo* found = find(want.name);
    ESP_REQUIRE(found != nullptr, FormatError, folder().string(), ": tensor \"", want.name,
                "\" is missing; config.json (", c.model_type, ", ", c.num_hidden_layers,
                " layers, ", c.mixture.experts, " experts) calls for it");
    ESP_REQUIRE(
        std::equal(found->shape.begin(), found->shape.end(), want.shape.begin(), want.shape.end()),
        FormatError, shard_of(want.name).content.path().string(), ": tensor \"", want.name,
        "\" is ", io::shape_text(*found), ", expected ", want.shape, " by config.json");
  }
  for (const std::string& name : names()) {
    if (known.count(name) == 1) continue;
    const std::optional<ExpertTensor> expert = expert_names_.find(name);
    const bool of_a_mixture = expert && !expert->mtp && expert->layer < c.num_hidden_layers &&
                              c.has_mixture(expert->layer);
    const bool of_experts = of_a_mixture && expert->id_end > 0;  // else a tensor of the router
    refuse_beyond(name, of_experts || beyond_last_layer(name));
    unused_.push_back(name);
    if (of_a_mixture) warnings_.push_back("tensor " + name + " of a router is not used");
  }
}

/// Clears config_ if a weight has a type other than the three that the forward pass takes. Without
/// this check a GEMM would refuse such a weight in the middle of the work, and name no tensor.
ESP_INLINE void Checkpoint::check_types() {
  for (const TensorPlace& place : stored_tensors(*config_)) {
    const std::string& type = at(place.name).type;
    if (type == "F32" || type == "BF16" || type == "F16") continue;
    why_not_ = shard_of(place.name).content.path().string() + ": tensor \"" + place.name +
               "\" has dtype " + type +
               "; weights of F32, BF16 and F16 are computed with, others can be inspected, pruned "
               "and verified";
    config_.reset();
    return;
  }
}

ESP_INLINE std::vector<io::TensorSpec> tensor_specs(const DecoderConfig& c, DType dtype) {
  std::vector<io::TensorSpec> specs;
  for (const TensorPlace& place : stored_tensors(c)) {
    specs.push_back(io::make_spec(place.name, dtype, place.shape));
  }
  return specs;
}

ESP_INLINE void require_mixture(const Checkpoint& checkpoint, std::string_view work) {
  ESP_REQUIRE(checkpoint.mixture().experts > 0, FormatError, checkpoint.folder().string(),
              ": is a dense ", checkpoint.family().model_type, " checkpoint, there is nothing to ",
              work, "; upcycle makes a mixture of it");
}

}  // namespace espalier::hub
#endif
