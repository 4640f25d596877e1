// SPDX-License-Identifier: Apache-2.0
// Summarises a checkpoint: tensors grouped by name pattern, and the architecture as JSON.
#pragma once

#ifdef __CUDACC__
#error "espalier/hub/tensor_groups.hpp is host-only; include it from a .cpp"
#endif

#include <string>
#include <vector>

#include <espalier/hub/checkpoint.hpp>

namespace espalier::hub {

/// Tensors of one type whose names differ only in the numbers of layer and expert.
struct TensorGroup {
  std::string pattern;      // "model.layers.*.self_attn.q_proj.weight"
  std::string type, shape;  // shape of the first tensor
  std::int64_t count = 0, parameters = 0;
  std::size_t bytes = 0;
};

/// Groups the tensors in the order of the model, unused tensors last. Without a forward pass the
/// order is that of the files.
[[nodiscard]] std::vector<TensorGroup> tensor_groups(const Checkpoint& checkpoint);

/// Counts the layers with experts, without those of multi-token prediction.
[[nodiscard]] std::int64_t sparse_layers(const Mixture& m);

/// Family and sizes as JSON. Without a forward pass there are few sizes, and the reason.
[[nodiscard]] io::Json architecture_json(const Checkpoint& checkpoint);

}  // namespace espalier::hub

#ifdef ESP_BODIES
#include <map>

namespace espalier::hub {

namespace detail {

/// "model.layers.12.x" -> "model.layers.*.x"
inline std::string name_pattern(const std::string& name) {
  std::string pattern;
  for (std::size_t i = 0; i < name.size();) {
    const std::size_t end = std::min(name.find('.', i), name.size());
    const std::string part = name.substr(i, end - i);
    const bool number = part.find_first_not_of("0123456789") == std::string::npos;
    pattern += (i > 0 ? "." : "") + (number ? std::string("*") : part);
    i = end + 1;
  }
  return pattern;
}

inline std::vector<std::string> ordered_names(const Checkpoint& checkpoint) {
  if (!checkpoint.computable()) return checkpoint.names();
  std::vector<std::string> names;
  for (const TensorPlace& t : stored_tensors(checkpoint.config())) names.push_back(t.name);
  const std::vector<std::string>& unused = checkpoint.unused_tensors();
  names.insert(names.end(), unused.begin(), unused.end());
  return names;
}

}  // namespace detail

ESP_INLINE std::vector<TensorGroup> tensor_groups(const Checkpoint& checkpoint) {
  std::vector<TensorGroup> groups;
  std::map<std::string, std::size_t> index;
  for (const std::string& name : detail::ordered_names(checkpoint)) {
    const io::TensorInfo& t = checkpoint.at(name);
    const std::string pattern = detail::name_pattern(t.name), key = pattern + ' ' + t.type;
    if (index.emplace(key, groups.size()).second) {
      groups.push_back({pattern, t.type, io::shape_text(t)});
    }
    TensorGroup& g = groups[index.at(key)];
    std::int64_t parameters = 1;
    for (const std::int64_t extent : t.shape) parameters *= extent;
    ++g.count;
    g.parameters += parameters;
    g.bytes += t.bytes;
  }
  return groups;
}

ESP_INLINE std::int64_t sparse_layers(const Mixture& m) {
  return std::count(m.sparse.begin(), m.sparse.end(), true);
}

ESP_INLINE io::Json architecture_json(const Checkpoint& checkpoint) {
  io::Json a = io::Json::object();
  const Mixture& m = checkpoint.mixture();
  a["model_type"] = checkpoint.family().model_type;
  a["computable"] = checkpoint.computable();
  if (!checkpoint.computable()) {
    a["layers"] = m.layers;
    a["experts"] = m.experts;
    a["top_k"] = m.top_k;
    a["why_not_computable"] = checkpoint.why_not_computable();
  } else {
    const DecoderConfig& c = checkpoint.config();
    a["layers"] = c.num_hidden_layers;
    a["hidden"] = c.hidden_size;
    a["intermediate"] = c.has_mixture() ? c.mixture.width : c.intermediate_size;
    a["heads"] = c.attention.heads;
    a["kv_heads"] = c.attention.kv_heads;
    a["head_dim"] = c.attention.head_dim;
    a["experts"] = c.mixture.experts;
    a["top_k"] = c.mixture.router.top_k;
    a["shared_expert"] = c.mixture.shared_width;
    a["vocab"] = c.vocab_size;
    a["max_positions"] = c.max_position_embeddings;
    a["sliding_window"] = c.attention.window;
    a["rope_theta"] = c.attention.rope.theta;
    a["rms_norm_eps"] = c.rms_norm_eps;
    a["tied_embeddings"] = c.tie_word_embeddings;
  }
  a["mixture_layers"] = sparse_layers(m);
  a["groups"] = m.groups;
  a["prediction_layers_with_experts"] = m.prediction.size();
  return a;
}

}  // namespace espalier::hub
#endif
