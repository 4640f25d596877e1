// SPDX-License-Identifier: Apache-2.0
// Every tensor of a model, written once: name, shape, and what it is for. Whoever loads, checks,
// adapts, prunes, forecasts or writes a checkpoint walks this description. Pure data: no file is
// opened, no weight is held.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <espalier/core/shape.hpp>
#include <espalier/models/decoder_config.hpp>

namespace espalier {

/// A tensor as a checkpoint stores it.
struct TensorPlace {
  std::string name;
  Shape shape;
  Part part;
  bool bias = false;
  int layer = -1;        // -1: outside of the layers
  int expert = -1;       // -1: of no single expert
  int expert_axis = -1;  // the axis along which experts lie; -1: none
};

/// A matrix [out, in] that an adapter can sit on, under its module's name.
struct LinearModule {
  std::string name;
  Part part;
  int layer = 0, expert = -1;
  std::int64_t out = 0, in = 0;
};

/// All tensors, in the order of a state dict.
[[nodiscard]] std::vector<TensorPlace> stored_tensors(const DecoderConfig& c);

/// Every linear layer but the head, in the order of the layers. An expert's matrices count one by
/// one, however they are stored.
[[nodiscard]] std::vector<LinearModule> linear_modules(const DecoderConfig& c);

/// q, k, v, o, q_a, q_b, kv_a, kv_b, router, gate, up, down, shared_router; empty for a part that
/// is no linear layer. Dense, shared and routed feed-forward matrices share a target, as their
/// modules share a name.
[[nodiscard]] std::string_view target_of(Part part);

/// Targets as a user writes them (also `all`, `all+router`, and the family's own names, such as
/// Mixtral's w1) in those words. @throws UsageError naming the target and those that there are
[[nodiscard]] std::vector<std::string> resolve_targets(const DecoderConfig& c,
                                                       const std::vector<std::string>& targets);

/// Finds the tensors of a model by what they are for.
class Layout {
 public:
  ESP_INLINE explicit Layout(const DecoderConfig& c) : places_(stored_tensors(c)) {
    for (std::size_t i = 0; i < places_.size(); ++i) {
      const TensorPlace& p = places_[i];
      index_.emplace_back(key(p.part, p.layer, p.expert, p.bias), i);
    }
    std::sort(index_.begin(), index_.end());
  }
  const std::vector<TensorPlace>& places() const { return places_; }
  /// nullptr if the model has no such tensor.
  ESP_INLINE const TensorPlace* find(Part part, int layer = -1, int expert = -1,
                                     bool bias = false) const {
    const std::uint64_t wanted = key(part, layer, expert, bias);
    const auto it =
        std::lower_bound(index_.begin(), index_.end(), std::pair(wanted, std::size_t{0}));
    return it == index_.end() || it->first != wanted ? nullptr : &places_[it->second];
  }

 private:
  static std::uint64_t key(Part part, int layer, int expert, bool bias) {
    return std::uint64_t{static_cast<std::uint8_t>(part)} << 48 |
           static_cast<std::uint64_t>(layer + 1) << 24 |
           static_cast<std::uint64_t>(expert + 1) << 1 | std::uint64_t{bias};
  }

  std::vector<TensorPlace> places_;
  std::vector<std::pair<std::uint64_t, std::size_t>> index_;  // by key
};

}  // namespace espalier

#ifdef ESP_BODIES
namespace espalier {

namespace detail {

struct Extents {
  std::int64_t out, in;
};

/// Of one matrix of a feed-forward network of width `width`.
inline Extents feed_forward_extents(const DecoderConfig& c, Part part, std::int64_t width) {
  const bool down = part == Part::down || part == Part::expert_down || part == Part::shared_down;
  return down ? Extents{c.hidden_size, width} : Extents{width, c.hidden_size};
}

/// The experts' matrices in the order of the disk.
inline std::vector<Part> expert_parts(const TensorNames& names) {
  std::vector<Part> parts;
  for (const NamePattern& p : names.patterns) {
    const bool matrix =
        p.part == Part::expert_gate || p.part == Part::expert_up || p.part == Part::expert_down;
    if (matrix) parts.push_back(p.part);
  }
  return parts;
}

struct AttentionMatrix {
  Part part;
  Extents extents;
  bool bias;
};

inline std::vector<AttentionMatrix> attention_matrices(const DecoderConfig& c) {
  const AttentionConfig& a = c.attention;
  const LatentShape& m = a.latent;
  const std::int64_t h = c.hidden_size, q = a.heads * a.head_dim, kv = a.kv_heads * a.head_dim;
  std::vector<AttentionMatrix> list;
  if (m.kv_rank == 0) {
    list = {{Part::q, {q, h}, a.qkv_bias},
            {Part::k, {kv, h}, a.qkv_bias},
            {Part::v, {kv, h}, a.qkv_bias}};
  } else {
    if (m.q_rank == 0) {
      list.push_back({Part::q, {q, h}, false});
    } else {
      list.push_back({Part::q_a, {m.q_rank, h}, a.qkv_bias});
      list.push_back({Part::q_b, {q, m.q_rank}, false});
    }
    list.push_back({Part::kv_a, {m.kv_rank + m.rope_dim, h}, a.qkv_bias});
    list.push_back({Part::kv_b, {a.heads * (m.nope_dim() + m.v_dim), m.kv_rank}, false});
  }
  const std::int64_t values = m.kv_rank == 0 ? q : a.heads * m.v_dim;
  list.push_back({Part::o, {h, values}, a.o_bias});
  return list;
}

class LayoutBuilder {
 public:
  explicit LayoutBuilder(const DecoderConfig& c) : c_(c) {}

  std::vector<TensorPlace> build() {
    const std::int64_t h = c_.hidden_size;
    add(Part::embedding, {c_.vocab_size, h});
    for (std::int64_t l = 0; l < c_.num_hidden_layers; ++l) layer(static_cast<int>(l));
    add(Part::final_norm, {h});
    if (!c_.tie_word_embeddings) add(Part::head, {c_.vocab_size, h});
    return std::move(places_);
  }

 private:
  void add(Part part, const Shape& shape, int layer = -1, int expert = -1, int axis = -1) {
    places_.push_back({c_.names.of(part, layer, expert), shape, part, false, layer, expert, axis});
  }
  void add_bias(Part part, const Shape& shape, int layer, int expert = -1, int axis = -1) {
    places_.push_back({c_.names.bias(part, layer, expert), shape, part, true, layer, expert, axis});
  }

  void layer(int l) {
    attention(l);
    if (c_.has_mixture(l)) {
      mixture(l);
    } else {
      feed_forward(l, {Part::gate, Part::up, Part::down}, c_.intermediate_size, c_.mlp_bias);
    }
    add(Part::input_norm, {c_.hidden_size}, l);
    add(Part::post_norm, {c_.hidden_size}, l);
  }

  void attention(int l) {
    const AttentionConfig& a = c_.attention;
    if (a.sinks) add(Part::sinks, {a.heads}, l);
    for (const AttentionMatrix& m : attention_matrices(c_)) {
      add(m.part, {m.extents.out, m.extents.in}, l);
      if (m.bias) add_bias(m.part, {m.extents.out}, l);
      if (m.part == Part::q_a) add(Part::q_a_norm, {a.latent.q_rank}, l);
      if (m.part == Part::kv_a) add(Part::kv_a_norm, {a.latent.kv_rank}, l);
    }
    if (a.q_k_norm) {
      add(Part::q_norm, {a.norm_whole ? a.heads * a.head_dim : a.head_dim}, l);
      add(Part::k_norm, {a.norm_whole ? a.kv_heads * a.head_dim : a.head_dim}, l);
    }
  }

  void feed_forward(int l, std::initializer_list<Part> parts, std::int64_t width, bool bias) {
    for (const Part part : parts) {
      const Extents x = feed_forward_extents(c_, part, width);
      add(part, {x.out, x.in}, l);
      if (bias) add_bias(part, {x.out}, l);
    }
  }

  void mixture(int l) {
    const MixtureConfig& m = c_.mixture;
    add(Part::router, {m.experts, c_.hidden_size}, l, -1, 0);
    if (m.router_bias) add_bias(Part::router, {m.experts}, l, -1, 0);
    if (m.selection_bias) add(Part::selection_bias, {m.experts}, l, -1, 0);
    if (m.storage == ExpertStorage::separate) {
      for (int e = 0; e < static_cast<int>(m.experts); ++e) {
        for (const Part part : expert_parts(c_.names)) {
          const Extents x = feed_forward_extents(c_, part, m.width);
          add(part, {x.out, x.in}, l, e);
          if (m.expert_bias) add_bias(part, {x.out}, l, e);
        }
      }
    } else {
      fused_experts(l);
    }
    if (m.shared_width == 0) return;
    feed_forward(l, {Part::shared_gate, Part::shared_up, Part::shared_down}, m.shared_width, false);
    if (m.shared_router) add(Part::shared_router, {1, c_.hidden_size}, l);
  }

  void fused_experts(int l) {
    const MixtureConfig& m = c_.mixture;
    const std::int64_t e = m.experts, f = m.width, h = c_.hidden_size;
    const bool transposed = m.storage == ExpertStorage::interleaved;
    add(Part::experts_gate_up, transposed ? Shape{e, h, 2 * f} : Shape{e, 2 * f, h}, l, -1, 0);
    if (m.expert_bias) add_bias(Part::experts_gate_up, {e, 2 * f}, l, -1, 0);
    add(Part::experts_down, transposed ? Shape{e, f, h} : Shape{e, h, f}, l, -1, 0);
    if (m.expert_bias) add_bias(Part::experts_down, {e, h}, l, -1, 0);
  }

  const DecoderConfig& c_;
  std::vector<TensorPlace> places_;
};

}  // namespace detail

ESP_INLINE std::vector<TensorPlace> stored_tensors(const DecoderConfig& c) {
  return detail::LayoutBuilder(c).build();
}

ESP_INLINE std::vector<LinearModule> linear_modules(const DecoderConfig& c) {
  std::vector<LinearModule> list;
  const MixtureConfig& m = c.mixture;
  for (std::int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    const int l = static_cast<int>(layer);
    const auto add = [&](Part part, const detail::Extents& x, int expert = -1) {
      list.push_back({c.names.module(part, l, expert), part, l, expert, x.out, x.in});
    };
    const auto feed_forward = [&](std::initializer_list<Part> parts, std::int64_t width) {
      for (const Part part : parts) add(part, detail::feed_forward_extents(c, part, width));
    };
    for (const auto& matrix : detail::attention_matrices(c)) add(matrix.part, matrix.extents);
    if (!c.has_mixture(layer)) {
      feed_forward({Part::gate, Part::up, Part::down}, c.intermediate_size);
      continue;
    }
    add(Part::router, {m.experts, c.hidden_size});
    for (int e = 0; e < static_cast<int>(m.experts); ++e) {
      for (const Part part : {Part::expert_gate, Part::expert_up, Part::expert_down}) {
        add(part, detail::feed_forward_extents(c, part, m.width), e);
      }
    }
    if (m.shared_width == 0) continue;
    feed_forward({Part::shared_gate, Part::shared_up, Part::shared_down}, m.shared_width);
    if (m.shared_router) add(Part::shared_router, {1, c.hidden_size});
  }
  return list;
}

ESP_INLINE std::string_view target_of(Part part) {
  switch (part) {
    case Part::q:
      return "q";
    case Part::k:
      return "k";
    case Part::v:
      return "v";
    case Part::o:
      return "o";
    case Part::q_a:
      return "q_a";
    case Part::q_b:
      return "q_b";
    case Part::kv_a:
      return "kv_a";
    case Part::kv_b:
      return "kv_b";
    case Part::router:
      return "router";
    case Part::gate:
    case Part::expert_gate:
    case Part::shared_gate:
      return "gate";
    case Part::up:
    case Part::expert_up:
    case Part::shared_up:
      return "up";
    case Part::down:
    case Part::expert_down:
    case Part::shared_down:
      return "down";
    case Part::shared_router:
      return "shared_router";
    default:
      return {};
  }
}

ESP_INLINE std::vector<std::string> resolve_targets(const DecoderConfig& c,
                                                    const std::vector<std::string>& targets) {
  std::vector<std::string_view> known;
  for (const LinearModule& m : linear_modules(c)) {
    const std::string_view t = target_of(m.part);
    if (std::find(known.begin(), known.end(), t) == known.end()) known.push_back(t);
  }
  std::vector<std::string> out;
  const auto add = [&](std::string_view t) {
    if (std::find(out.begin(), out.end(), t) == out.end()) out.emplace_back(t);
  };
  for (const std::string& target : targets) {
    if (target == "all" || target == "all+router") {
      for (const std::string_view t : known) {
        if (t != "router" || target == "all+router") add(t);
      }
      continue;
    }
    std::string_view name = target;
    for (const auto& [alias, meaning] : c.names.target_aliases) {
      if (target == alias) name = meaning;
    }
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      std::string list;
      for (const std::string_view t : known)
        list += std::string(list.empty() ? "" : ",") + std::string(t);
      for (const auto& [alias, meaning] : c.names.target_aliases) {
        if (alias != "gate") list += "," + std::string(alias);
      }
      throw UsageError(detail::concat({"lora: unknown target '", target, "', expected some of ",
                                       list, ", or all, or all+router"}));
    }
    add(name);
  }
  return out;
}

}  // namespace espalier
#endif
