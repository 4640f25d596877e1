// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query self-attention with rotary positions and no biases (Mixtral's, Llama's).
//   x [N, H] -> q [N, A, P], k and v [N, G, P] -> [N, H]
#pragma once

#include <span>
#include <string>
#include <vector>

#include <espalier/nn/kv_cache.hpp>
#include <espalier/nn/linear.hpp>
#include <espalier/ops/attention.hpp>
#include <espalier/ops/reshape.hpp>
#include <espalier/ops/rope.hpp>

namespace espalier {

struct AttentionShape {
  std::int64_t heads = 0;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;
  double rope_theta = 10000;
  std::int64_t window = 0;  // 0: every earlier token
};

template <FloatElement T, Device D = Cpu>
class Attention {
 public:
  Attention() = default;
  Attention(const AttentionShape& shape, Linear<T, D> q, Linear<T, D> k, Linear<T, D> v,
            Linear<T, D> o)
      : q_(std::move(q)), k_(std::move(k)), v_(std::move(v)), o_(std::move(o)), shape_(shape) {}

  /// Each segment is causal on its own.
  Var<T, D> operator()(const Var<T, D>& x, const Tensor<std::int32_t>& positions,
                       const std::vector<std::int64_t>& segments,
                       const TrainContext* training = nullptr) const {
    const Projected p = project(x, positions, training);
    const auto y = attention(p.q, p.k, p.v, segments, shape_.window);
    return o_(merged(y), training);
  }

  /// Segment s continues `caches[s]`, to whose `layer` its keys and values are appended.
  Var<T, D> operator()(const Var<T, D>& x, const Tensor<std::int32_t>& positions,
                       const std::vector<std::int64_t>& segments,
                       std::span<KvCache<T, D>* const> caches, std::int64_t layer) const {
    const Projected p = project(x, positions, nullptr);
    const auto q = p.q.value(), k = p.k.value(), v = p.v.value();
    const Tensor<T, D> y(q.shape());
    const std::int64_t width = shape_.heads * shape_.head_dim;
    const std::int64_t kv_width = shape_.kv_heads * shape_.head_dim;
    std::vector<cpu::AttentionSegment<T>> work;
    for (std::size_t s = 0; s < caches.size(); ++s) {
      const std::int64_t begin = segments[s], rows = segments[s + 1] - begin;
      caches[s]->append(layer, k.data() + begin * kv_width, v.data() + begin * kv_width, rows);
      work.push_back({q.data() + begin * width, caches[s]->keys(layer), caches[s]->values(layer),
                      y.data() + begin * width, rows, caches[s]->length() + rows});
    }
    const trace::Scope scope("attention");
    const cpu::AttentionHeads heads{shape_.heads, shape_.kv_heads, shape_.head_dim, shape_.window};
    if constexpr (requires { launch_attention(D{}, work, heads); }) {
      launch_attention(D{}, work, heads);
    } else {
      cpu::attention_forward<T>(work, heads);
    }
    return o_(merged(Var<T, D>(y)));
  }

  void add_lora(const LoraConfig& config, std::uint64_t seed) {
    if (config.targets_any("q")) q_.add_lora(config, seed);
    if (config.targets_any("k")) k_.add_lora(config, seed);
    if (config.targets_any("v")) v_.add_lora(config, seed);
    if (config.targets_any("o")) o_.add_lora(config, seed);
  }
  void collect(std::vector<NamedParameter>& out) const {
    for (const Linear<T, D>* part : {&q_, &k_, &v_, &o_}) part->collect(out);
  }

 private:
  struct Projected {
    Var<T, D> q, k, v;
  };

  Projected project(const Var<T, D>& x, const Tensor<std::int32_t>& positions,
                    const TrainContext* training) const {
    return {rope(split(q_(x, training), shape_.heads), positions, shape_.rope_theta),
            rope(split(k_(x, training), shape_.kv_heads), positions, shape_.rope_theta),
            split(v_(x, training), shape_.kv_heads)};
  }
  Var<T, D> split(const Var<T, D>& x, std::int64_t heads) const {
    return reshape(x, Shape{x.shape(0), heads, shape_.head_dim});
  }
  Var<T, D> merged(const Var<T, D>& y) const {
    return reshape(y, Shape{y.shape(0), shape_.heads * shape_.head_dim});
  }

  Linear<T, D> q_, k_, v_, o_;
  AttentionShape shape_;
};

}  // namespace espalier
