// SPDX-License-Identifier: Apache-2.0
// Queries, keys and values of multi-head latent attention (DeepSeek-V2, 2024, arXiv:2405.04434,
// section 2.1): low-rank projections, and rotary positions on a part of each head only.
//   q = W_qb rms(W_qa x), or W_q x                  [N, A, nope + rope]
//   (c, r) = W_kva x; (k, v) = W_kvb rms(c)         k [N, A, nope], v [N, A, V]
//   keys = (k, rope(r)): all heads share the rotated part
// Values are padded with zeros to the width of the keys, so that the common attention applies.
#pragma once

#include <espalier/nn/linear.hpp>
#include <espalier/nn/rms_norm.hpp>
#include <espalier/ops/concat_heads.hpp>
#include <espalier/ops/narrow.hpp>
#include <espalier/ops/reshape.hpp>
#include <espalier/ops/rope.hpp>

namespace espalier {

struct LatentShape {
  std::int64_t q_rank = 0;   // 0: queries come from x itself
  std::int64_t kv_rank = 0;  // 0: no latent attention
  std::int64_t rope_dim = 0, v_dim = 0;
  std::int64_t head_dim = 0;  // nope_dim + rope_dim
  std::int64_t nope_dim() const { return head_dim - rope_dim; }
};

template <FloatElement T, Device D = Cpu>
struct LatentProjection {
  Linear<T, D> q;  // empty where queries have a low rank
  Linear<T, D> q_a;
  RmsNorm<T, D> q_a_norm;
  Linear<T, D> q_b;
  Linear<T, D> kv_a;
  RmsNorm<T, D> kv_a_norm;
  Linear<T, D> kv_b;

  struct Output {
    Var<T, D> q, k, v;  // [N, A, head_dim] each
  };

  Output operator()(const Var<T, D>& x, const Tensor<std::int32_t>& positions,
                    const LatentShape& shape, std::int64_t heads, const RopeConfig& rope_config,
                    const TrainContext* training) const {
    const std::int64_t n = x.shape(0), nope = shape.nope_dim(), rotated = shape.rope_dim;
    const auto queries =
        reshape(shape.q_rank == 0 ? q(x, training) : q_b(q_a_norm(q_a(x, training)), training),
                Shape{n, heads, shape.head_dim});
    const auto compressed = kv_a(x, training);
    const auto latent = kv_a_norm(narrow(compressed, 0, shape.kv_rank));
    const auto shared_key =
        reshape(narrow(compressed, shape.kv_rank, rotated), Shape{n, 1, rotated});
    const auto expanded = reshape(kv_b(latent, training), Shape{n, heads, nope + shape.v_dim});
    return {concat_heads(narrow(queries, 0, nope),
                         rope(narrow(queries, nope, rotated), positions, rope_config)),
            concat_heads(narrow(expanded, 0, nope), rope(shared_key, positions, rope_config)),
            pad_last(narrow(expanded, nope, shape.v_dim), shape.head_dim)};
  }

  void add_lora(const LoraConfig& config, std::uint64_t seed) {
    for_each_linear(*this, [&](const char* target, auto& layer) {
      if (layer.groups() > 0 && config.targets_any(target)) layer.add_lora(config, seed);
    });
  }
  void collect(std::vector<NamedParameter>& out, Listed listed = Listed::trained) const {
    for_each_linear(*this, [&](const char*, const auto& layer) { layer.collect(out, listed); });
    q_a_norm.collect(out, listed);
    kv_a_norm.collect(out, listed);
  }

 private:
  template <class Self, class F>
  static void for_each_linear(Self& self, F&& f) {
    f("q", self.q);
    f("q_a", self.q_a);
    f("q_b", self.q_b);
    f("kv_a", self.kv_a);
    f("kv_b", self.kv_b);
  }
};

}  // namespace espalier
