// SPDX-License-Identifier: Apache-2.0
// Finds the tensors of a checkpoint that hold experts by their names alone: of any type, with the
// scales, zeros and packed blocks of quantized weights.
//   model.layers.3.mlp.experts.5.gate_proj.weight_scale_inv   expert 5 of layer 3
//   model.layers.3.mlp.experts.gate_up_proj_blocks            all experts, along axis 0
//   model.layers.3.mlp.gate.weight                            a router: a row per expert
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/models/families/family.hpp>

namespace espalier {

/// The place of a tensor in a mixture.
struct ExpertTensor {
  /// The part of the pattern that the name matched. A scale or a bias has the part of its matrix. A
  /// tensor of an expert that the family has no pattern for has the part of another expert matrix.
  Part part = Part::expert_gate;
  int layer = 0;
  int expert = -1;   // -1: it holds a part of every expert
  int axis = 0;      // along which, then
  bool mtp = false;  // named as a part of multi-token prediction, with layers of its own count
  std::size_t id_begin = 0, id_end = 0;  // where the expert's number stands in the name

  /// Does the tensor belong to the router (its selection bias included), not to the experts?
  bool of_router() const { return part == Part::router || part == Part::selection_bias; }
};

class ExpertNames {
 public:
  explicit ExpertNames(const Family& family);

  /// Empty for a tensor outside of a mixture.
  std::optional<ExpertTensor> find(std::string_view name) const;
  /// `name` with the number `expert` in place of its own.
  static std::string renumbered(std::string_view name, const ExpertTensor& tensor, int expert);
  /// True if the prefix is one of multi-token prediction.
  bool is_mtp(std::string_view name) const;
  /// The number of the tensor's layer; -1: outside of the layers.
  int layer_of(std::string_view name) const;

 private:
  struct Pattern {
    Part part;
    std::string before, after;  // of the layer's number; `after` ends where the pattern does
    enum class Kind {
      each,    // behind it stand an expert's number, or a tensor of all experts
      module,  // a module's name: behind it stand a dot and the tensor's own
      tensor,  // a tensor's name, alone or with a suffix for a companion: "_scales", ".scale"
      whole    // a tensor's name
    } kind;
    int axis = 0;
    std::string matrix = {};  // of kind `each`: what stands behind the expert's number, ".w1"
  };
  static bool is_component(std::string_view text, std::string_view front);
  static bool match(const Pattern& p, std::string_view rest, ExpertTensor& found,
                    std::string_view name);

  std::vector<Pattern> patterns_;
  std::vector<std::string> mtp_prefixes_;
};

namespace detail {

/// Parses and removes a leading number of `text`; -1 if there is none.
inline int take_number(std::string_view& text) {
  int value = 0;
  std::size_t digits = 0;
  while (digits < text.size() && digits < 7 && text[digits] >= '0' && text[digits] <= '9') {
    value = 10 * value + (text[digits++] - '0');
  }
  if (digits == 0) return -1;
  text.remove_prefix(digits);
  return value;
}

}  // namespace detail

}  // namespace espalier

#ifdef ESP_BODIES
namespace espalier {

ESP_INLINE ExpertNames::ExpertNames(const Family& family) : mtp_prefixes_(family.mtp_prefixes) {
  for (const NamePattern& p : family.names.patterns) {
    const bool matrix = p.part == Part::expert_gate || p.part == Part::expert_up ||
                        p.part == Part::expert_down || p.part == Part::experts_gate_up ||
                        p.part == Part::experts_down;
    if (!matrix && p.part != Part::router && p.part != Part::selection_bias) continue;
    const std::size_t layer = p.text.find("{l}");
    std::string after(p.text.substr(layer + 3));
    Pattern pattern{p.part, std::string(p.text.substr(0, layer)), {}, Pattern::Kind::tensor, 0};
    const std::size_t expert = after.find("{e}");
    const bool weight = p.part != Part::selection_bias && after.ends_with(".weight");
    if (weight) after.resize(after.size() - 7);
    if (expert != std::string::npos) {
      pattern.matrix = after.substr(expert + 3);
      after.resize(expert);
      pattern.kind = Pattern::Kind::each;
    } else if (p.part == Part::selection_bias) {
      pattern.kind = Pattern::Kind::whole;
      pattern.axis = family.selection_bias_axis;
    } else if (weight) {
      pattern.kind = Pattern::Kind::module;
    }
    pattern.after = std::move(after);
    patterns_.push_back(std::move(pattern));
  }
  if (patterns_.empty()) return;
  // The names of transformers 5 in memory: some checkpoints were written with them.
  const std::string layers = "model.layers.";
  patterns_.push_back({Part::router, layers, ".mlp.gate", Pattern::Kind::module});
  patterns_.push_back(
      {Part::experts_gate_up, layers, ".mlp.experts.gate_up_proj", Pattern::Kind::tensor});
  patterns_.push_back(
      {Part::experts_down, layers, ".mlp.experts.down_proj", Pattern::Kind::tensor});
  patterns_.push_back({Part::expert_gate, layers, ".mlp.experts.", Pattern::Kind::each});
}

ESP_INLINE bool ExpertNames::is_mtp(std::string_view name) const {
  for (const std::string& prefix : mtp_prefixes_) {
    if (name.starts_with(prefix)) return true;
  }
  return false;
}

ESP_INLINE int ExpertNames::layer_of(std::string_view name) const {
  for (const Pattern& p : patterns_) {
    if (!name.starts_with(p.before)) continue;
    std::string_view rest = name.substr(p.before.size());
    return detail::take_number(rest);
  }
  return -1;
}

/// Does `text` begin with `front`, and end there or go on with a dot?
ESP_INLINE bool ExpertNames::is_component(std::string_view text, std::string_view front) {
  return text.starts_with(front) && (text.size() == front.size() || text[front.size()] == '.');
}

/// Does `rest`, the end of `name`, match what stands behind the pattern? Sets `found.expert` and
/// the place of its number.
ESP_INLINE bool ExpertNames::match(const Pattern& p, std::string_view rest, ExpertTensor& found,
                                   std::string_view name) {
  switch (p.kind) {
    case Pattern::Kind::each:
      found.id_begin = name.size() - rest.size();
      found.expert = detail::take_number(rest);
      found.id_end = name.size() - rest.size();
      // Without a number it is a tensor of all experts, such as experts.gate_up_proj_bias.
      return found.expert < 0 || rest.starts_with('.');
    case Pattern::Kind::module:
      return rest.starts_with('.');
    case Pattern::Kind::whole:
      return rest.empty();
    case Pattern::Kind::tensor:
      return rest.empty() || rest.starts_with('_') || rest.starts_with('.');
  }
  return false;
}

ESP_INLINE std::optional<ExpertTensor> ExpertNames::find(std::string_view name) const {
  std::string_view stem = name;
  bool mtp = false;
  for (const std::string& prefix : mtp_prefixes_) {
    if (!name.starts_with(prefix)) continue;
    stem.remove_prefix(prefix.size());
    mtp = true;
  }
  std::optional<ExpertTensor> close;  // it is an expert's, of another matrix than the pattern's
  for (const Pattern& p : patterns_) {
    // Multi-token prediction layers are called layers.N after the prefix.
    const std::string_view before =
        mtp ? std::string_view(p.before).substr(p.before.rfind("layers.")) : p.before;
    if (!stem.starts_with(before)) continue;
    std::string_view rest = stem.substr(before.size());
    ExpertTensor found;
    found.part = p.part;
    found.mtp = mtp;
    found.layer = detail::take_number(rest);
    if (found.layer < 0 || !rest.starts_with(p.after)) continue;
    rest.remove_prefix(p.after.size());
    found.axis = p.axis;
    if (!match(p, rest, found, name)) continue;
    const bool exact = p.kind != Pattern::Kind::each ||
                       (found.expert >= 0 && is_component(name.substr(found.id_end), p.matrix));
    if (exact) return found;
    if (!close) close = found;
  }
  return close;
}

ESP_INLINE std::string ExpertNames::renumbered(std::string_view name, const ExpertTensor& tensor,
                                               int expert) {
  return std::string(name.substr(0, tensor.id_begin)) + std::to_string(expert) +
         std::string(name.substr(tensor.id_end));
}

}  // namespace espalier
#endif
