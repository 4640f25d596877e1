// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query self-attention with rotary positions, as in Llama and Mixtral, with the
// options of other families: biases, a norm of queries and keys (per head or over all heads),
// clipping, sinks, and latent attention in place of the three projections.
//   x [N, H] -> q [N, A, P], k and v [N, G, P] -> [N, H]
#pragma once

#include <span>
#include <string>
#include <vector>

#include <espalier/nn/kv_cache.hpp>
#include <espalier/nn/latent_attention.hpp>
#include <espalier/nn/linear.hpp>
#include <espalier/nn/rms_norm.hpp>
#include <espalier/ops/attention.hpp>
#include <espalier/ops/clamp.hpp>
#include <espalier/ops/reshape.hpp>
#include <espalier/ops/rope.hpp>
#include <espalier/ops/scale.hpp>

namespace espalier {

struct AttentionConfig {
  std::int64_t heads = 32;
  std::int64_t kv_heads = 8;
  std::int64_t head_dim = 128;
  RopeConfig rope = {};
  std::int64_t window = 0;  // tokens in a sliding window, itself included; 0: no window
  double scale = 0;         // of the scores; 0: head_dim^-1/2
  bool qkv_bias = false, o_bias = false;
  bool q_k_norm = false;    // queries and keys are normalised, per head
  bool norm_whole = false;  // or over all heads together
  double clip = 0;          // queries, keys and values are clamped to ±clip; 0: no clipping
  bool sinks = false;       // a learned logit per head in the softmax's denominator
  LatentShape latent = {};
};

/// The weights of an attention; those that a family lacks stay empty.
template <FloatElement T, Device D = Cpu>
struct AttentionWeights {
  Linear<T, D> q, k, v, o;
  RmsNorm<T, D> q_norm, k_norm;  // [P], or of the whole projection
  std::string sinks_name;
  AnyVar sinks;  // [A]
  LatentProjection<T, D> latent;
};

template <FloatElement T, Device D = Cpu>
class Attention {
 public:
  Attention() = default;
  Attention(const AttentionConfig& config, AttentionWeights<T, D> weights)
      : w_(std::move(weights)), config_(config) {}
  Attention(const AttentionConfig& config, Linear<T, D> q, Linear<T, D> k, Linear<T, D> v,
            Linear<T, D> o)
      : config_(config) {
    w_.q = std::move(q), w_.k = std::move(k), w_.v = std::move(v), w_.o = std::move(o);
  }

  /// Attends within each segment, causally.
  Var<T, D> operator()(const Var<T, D>& x, const Tensor<std::int32_t>& positions,
                       const std::vector<std::int64_t>& segments,
                       const TrainContext* training = nullptr) const {
    const Projected p = project(x, positions, training);
    return w_.o(merged(attention(p.q, p.k, p.v, segments, config_.window, w_.sinks)), training);
  }

  /// Segment s continues `caches[s]`; its keys and values are appended to that cache's `layer`.
  Var<T, D> operator()(const Var<T, D>& x, const Tensor<std::int32_t>& positions,
                       const std::vector<std::int64_t>& segments,
                       std::span<KvCache<T, D>* const> caches, std::int64_t layer) const {
    const Projected p = project(x, positions, nullptr);
    const auto q = p.q.value(), k = p.k.value(), v = p.v.value();
    const Tensor<T, D> y(q.shape());
    const std::int64_t width = q.shape(1) * q.shape(2), kv_width = k.shape(1) * k.shape(2);
    std::vector<cpu::AttentionSegment<T>> work;
    for (std::size_t s = 0; s < caches.size(); ++s) {
      const std::int64_t begin = segments[s], rows = segments[s + 1] - begin;
      caches[s]->append(layer, k.data() + begin * kv_width, v.data() + begin * kv_width, rows);
      work.push_back({q.data() + begin * width, caches[s]->keys(layer), caches[s]->values(layer),
                      y.data() + begin * width, rows, caches[s]->length() + rows, nullptr,
                      caches[s]->pages(layer)});
    }
    const cpu::AttentionHeads heads{q.shape(1), k.shape(1), q.shape(2), config_.window};
    cached_attention<D>(work, heads, w_.sinks.any());
    return w_.o(merged(Var<T, D>(y)));
  }

  void add_lora(const LoraConfig& config, std::uint64_t seed) {
    if (config_.latent.kv_rank > 0) {
      w_.latent.add_lora(config, seed);
    } else {
      if (config.targets_any("q")) w_.q.add_lora(config, seed);
      if (config.targets_any("k")) w_.k.add_lora(config, seed);
      if (config.targets_any("v")) w_.v.add_lora(config, seed);
    }
    if (config.targets_any("o")) w_.o.add_lora(config, seed);
  }
  void collect(std::vector<NamedParameter>& out, Listed listed = Listed::trained) const {
    for (const Linear<T, D>* part : {&w_.q, &w_.k, &w_.v}) part->collect(out, listed);
    w_.latent.collect(out, listed);
    w_.o.collect(out, listed);
    w_.q_norm.collect(out, listed);
    w_.k_norm.collect(out, listed);
    collect_tensor(out, listed, w_.sinks_name, w_.sinks);
  }

 private:
  struct Projected {
    Var<T, D> q, k, v;
  };

  Projected project(const Var<T, D>& x, const Tensor<std::int32_t>& positions,
                    const TrainContext* training) const {
    Projected p;
    if (config_.latent.kv_rank > 0) {
      auto latent = w_.latent(x, positions, config_.latent, config_.heads, config_.rope, training);
      p = {std::move(latent.q), std::move(latent.k), std::move(latent.v)};
    } else {
      p = {rope(heads_of(w_.q(x, training), config_.heads, w_.q_norm), positions, config_.rope),
           rope(heads_of(w_.k(x, training), config_.kv_heads, w_.k_norm), positions, config_.rope),
           heads_of(w_.v(x, training), config_.kv_heads, {})};
    }
    // The attention divides by sqrt(P).
    const double factor = config_.scale * math::sqrt(static_cast<double>(p.q.shape(2)));
    if (config_.scale != 0 && factor != 1) p.q = scale(p.q, factor);
    return p;
  }

  /// x [N, heads · P] -> [N, heads, P], clipped and normalised where the family does so.
  Var<T, D> heads_of(Var<T, D> x, std::int64_t heads, const RmsNorm<T, D>& norm) const {
    const std::int64_t n = x.shape(0);
    if (norm && config_.norm_whole) x = norm(x);
    if (config_.clip > 0) x = clamp(x, -config_.clip, config_.clip);
    if (norm && !config_.norm_whole) x = norm(reshape(x, Shape{n * heads, config_.head_dim}));
    return reshape(x, Shape{n, heads, config_.head_dim});
  }
  /// y [N, A, P] -> [N, A · V]: drops the zero padding of latent attention's values.
  Var<T, D> merged(const Var<T, D>& y) const {
    const LatentShape& m = config_.latent;
    const auto values = m.kv_rank > 0 && m.v_dim < y.shape(2) ? narrow(y, 0, m.v_dim) : y;
    return reshape(values, Shape{y.shape(0), values.shape(1) * values.shape(2)});
  }

  AttentionWeights<T, D> w_;
  AttentionConfig config_;
};

}  // namespace espalier
