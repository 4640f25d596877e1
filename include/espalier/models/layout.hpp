// SPDX-License-Identifier: Apache-2.0
// The layout of a model: name, shape and role of every tensor, described once. Loading, checking,
// adapters, pruning, forecasts and writing of checkpoints all walk this description. Pure data: it
// opens no file and holds no weight.
#pragma once

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

/// A matrix [out, in] that can have an adapter, under its module's name.
struct LinearModule {
  std::string name;
  Part part;
  int layer = 0, expert = -1;
  std::int64_t out = 0, in = 0;
};

/// All tensors, in the order of a state dict.
ESP_ON_DEMAND [[nodiscard]] std::vector<TensorPlace> stored_tensors(const DecoderConfig& c);

/// Every linear layer except the head, in the order of the layers. Experts' matrices are listed one
/// by one, even if stored fused.
ESP_ON_DEMAND [[nodiscard]] std::vector<LinearModule> linear_modules(const DecoderConfig& c);

/// The LoRA target of a part: q, k, v, o, q_a, q_b, kv_a, kv_b, router, gate, up, down,
/// shared_router; empty for a part that is no linear layer. Dense, shared and routed feed-forward
/// matrices share a target, as their modules share a name.
[[nodiscard]] std::string_view target_of(Part part);

/// Translates a user's targets (also `all`, `all+router`, and the family's own names, such as
/// Mixtral's w1) to those names. @throws UsageError naming the target and the valid ones
ESP_ON_DEMAND [[nodiscard]] std::vector<std::string> resolve_targets(
    const DecoderConfig& c, const std::vector<std::string>& targets);

/// Finds the tensors of a model by role.
class Layout {
 public:
  ESP_ON_DEMAND explicit Layout(const DecoderConfig& c);
  const std::vector<TensorPlace>& places() const { return places_; }
  /// nullptr if the model has no such tensor.
  const TensorPlace* find(Part part, int layer = -1, int expert = -1, bool bias = false) const;

 private:
  std::vector<TensorPlace> places_;
  std::vector<std::size_t> first_;  // place of each layer, and the end of the last
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

/// Calls f(part, extents, has_bias) for each matrix of an attention.
template <class F>
void for_each_attention_matrix(const DecoderConfig& c, F&& f) {
  const AttentionConfig& a = c.attention;
  const LatentShape& m = a.latent;
  const std::int64_t h = c.hidden_size, q = a.heads * a.head_dim, kv = a.kv_heads * a.head_dim;
  if (m.kv_rank == 0) {
    f(Part::q, Extents{q, h}, a.qkv_bias);
    f(Part::k, Extents{kv, h}, a.qkv_bias);
    f(Part::v, Extents{kv, h}, a.qkv_bias);
    f(Part::o, Extents{h, q}, a.o_bias);
    return;
  }
  if (m.q_rank == 0) {
    f(Part::q, Extents{q, h}, false);
  } else {
    f(Part::q_a, Extents{m.q_rank, h}, a.qkv_bias);
    f(Part::q_b, Extents{q, m.q_rank}, false);
  }
  f(Part::kv_a, Extents{m.kv_rank + m.rope_dim, h}, a.qkv_bias);
  f(Part::kv_b, Extents{a.heads * (m.nope_dim() + m.v_dim), m.kv_rank}, false);
  f(Part::o, Extents{h, a.heads * m.v_dim}, a.o_bias);
}

inline bool is_expert_matrix(Part part) {
  return part == Part::expert_gate || part == Part::expert_up || part == Part::expert_down;
}

class LayoutBuilder {
 public:
  explicit LayoutBuilder(const DecoderConfig& c) : c_(c) {}

  ESP_ON_DEMAND std::vector<TensorPlace> build() {
    const std::int64_t h = c_.hidden_size;
    add(Part::embedding, {c_.vocab_size, h});
    for (std::int64_t l = 0; l < c_.num_hidden_layers; ++l) layer(static_cast<int>(l));
    add(Part::final_norm, {h});
    if (!c_.tie_word_embeddings) add(Part::head, {c_.vocab_size, h});
    return std::move(places_);
  }

 private:
  ESP_ON_DEMAND void add(Part part, const Shape& shape, int layer = -1, int expert = -1,
                         int axis = -1) {
    places_.push_back({c_.names.of(part, layer, expert), shape, part, false, layer, expert, axis});
  }
  ESP_ON_DEMAND void add_bias(Part part, const Shape& shape, int layer, int expert = -1,
                              int axis = -1) {
    places_.push_back({c_.names.bias(part, layer, expert), shape, part, true, layer, expert, axis});
  }

  ESP_ON_DEMAND void layer(int l) {
    attention(l);
    if (c_.has_mixture(l)) {
      mixture(l);
    } else {
      feed_forward(l, {Part::gate, Part::up, Part::down}, c_.intermediate_size, c_.mlp_bias);
    }
    add(Part::input_norm, {c_.hidden_size}, l);
    add(Part::post_norm, {c_.hidden_size}, l);
  }

  ESP_ON_DEMAND void attention(int l) {
    const AttentionConfig& a = c_.attention;
    if (a.sinks) add(Part::sinks, {a.heads}, l);
    for_each_attention_matrix(c_, [&](Part part, const Extents& x, bool bias) {
      add(part, {x.out, x.in}, l);
      if (bias) add_bias(part, {x.out}, l);
      if (part == Part::q_a) add(Part::q_a_norm, {a.latent.q_rank}, l);
      if (part == Part::kv_a) add(Part::kv_a_norm, {a.latent.kv_rank}, l);
    });
    if (a.q_k_norm) {
      add(Part::q_norm, {a.norm_whole ? a.heads * a.head_dim : a.head_dim}, l);
      add(Part::k_norm, {a.norm_whole ? a.kv_heads * a.head_dim : a.head_dim}, l);
    }
  }

  ESP_ON_DEMAND void feed_forward(int l, std::initializer_list<Part> parts, std::int64_t width,
                                  bool bias) {
    for (const Part part : parts) {
      const Extents x = feed_forward_extents(c_, part, width);
      add(part, {x.out, x.in}, l);
      if (bias) add_bias(part, {x.out}, l);
    }
  }

  ESP_ON_DEMAND void mixture(int l) {
    const MixtureConfig& m = c_.mixture;
    add(Part::router, {m.experts, c_.hidden_size}, l, -1, 0);
    if (m.router_bias) add_bias(Part::router, {m.experts}, l, -1, 0);
    if (m.selection_bias) add(Part::selection_bias, {m.experts}, l, -1, 0);
    if (m.storage == ExpertStorage::separate) {
      for (int e = 0; e < static_cast<int>(m.experts); ++e) {
        for (const NamePattern& p : c_.names.patterns) {  // in the order of the disk
          if (!is_expert_matrix(p.part)) continue;
          const Extents x = feed_forward_extents(c_, p.part, m.width);
          add(p.part, {x.out, x.in}, l, e);
          if (m.expert_bias) add_bias(p.part, {x.out}, l, e);
        }
      }
    } else {
      fused_experts(l);
    }
    if (m.shared_width == 0) return;
    feed_forward(l, {Part::shared_gate, Part::shared_up, Part::shared_down}, m.shared_width, false);
    if (m.shared_router) add(Part::shared_router, {1, c_.hidden_size}, l);
  }

  ESP_ON_DEMAND void fused_experts(int l) {
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

ESP_DEMANDED std::vector<TensorPlace> stored_tensors(const DecoderConfig& c) {
  return detail::LayoutBuilder(c).build();
}

ESP_DEMANDED Layout::Layout(const DecoderConfig& c) : places_(stored_tensors(c)) {
  int layer = -1;
  for (std::size_t i = 0; i < places_.size(); ++i) {
    if (places_[i].layer == layer && i > 0) continue;
    if (places_[i].layer >= 0 || layer >= 0) first_.push_back(i);
    layer = places_[i].layer;
  }
}

ESP_INLINE const TensorPlace* Layout::find(Part part, int layer, int expert, bool bias) const {
  const auto l = static_cast<std::size_t>(layer);
  const bool in_layer = layer >= 0;
  if (in_layer && l + 1 >= first_.size()) return nullptr;
  const std::size_t end = in_layer ? first_[l + 1] : places_.size();
  for (std::size_t i = in_layer ? first_[l] : 0; i < end; ++i) {
    const TensorPlace& p = places_[i];
    if (p.part == part && p.layer == layer && p.expert == expert && p.bias == bias) return &p;
    if (!in_layer && i + 1 == first_.front()) i = first_.back() - 1;  // past the layers
  }
  return nullptr;
}

ESP_DEMANDED std::vector<LinearModule> linear_modules(const DecoderConfig& c) {
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
    detail::for_each_attention_matrix(
        c, [&](Part part, const detail::Extents& x, bool) { add(part, x); });
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

namespace detail {
/// Removes duplicate names.
struct Targets {
  std::vector<std::string> list;
  ESP_ON_DEMAND bool has(std::string_view name) const {
    for (const std::string& t : list) {
      if (t == name) return true;
    }
    return false;
  }
  ESP_ON_DEMAND void add(std::string_view name) {
    if (!has(name)) list.emplace_back(name);
  }
};
}  // namespace detail

ESP_DEMANDED std::vector<std::string> resolve_targets(const DecoderConfig& c,
                                                      const std::vector<std::string>& targets) {
  detail::Targets known, out;
  for (const LinearModule& m : linear_modules(c)) known.add(target_of(m.part));
  for (const std::string& target : targets) {
    if (target == "all" || target == "all+router") {
      for (const std::string& t : known.list) {
        if (t != "router" || target == "all+router") out.add(t);
      }
      continue;
    }
    std::string_view name = target;
    for (const auto& [alias, meaning] : c.names.target_aliases) {
      if (target == alias) name = meaning;
    }
    if (!known.has(name)) {
      for (const auto& [alias, meaning] : c.names.target_aliases) known.add(alias);
      std::string all;
      for (const std::string& t : known.list) all += t + ",";
      all.pop_back();
      detail::throw_error<UsageError>({"lora: unknown target '", target, "', expected some of ",
                                       all, ", or all, or all+router"});
    }
    out.add(name);
  }
  return out.list;
}

}  // namespace espalier
#endif
