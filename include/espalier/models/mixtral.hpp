// SPDX-License-Identifier: Apache-2.0
// Mixtral (Jiang et al. 2024, arXiv:2401.04088): a pre-norm decoder whose feed-forward part is a
// mixture of experts. Weights are looked up by their Hugging Face names and stay in their stored
// type, frozen; LoRA adapters or, for training from scratch, the weights themselves are the
// parameters.
//   hidden = embedding; per layer: h += attention(rms(h)); h += moe(rms(h)); rms at the end; head
//   [V, H]
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <espalier/autograd/checkpoint.hpp>
#include <espalier/core/function.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/models/mixtral_config.hpp>
#include <espalier/models/model_loss.hpp>
#include <espalier/nn/attention.hpp>
#include <espalier/nn/embedding.hpp>
#include <espalier/nn/moe_block.hpp>
#include <espalier/nn/rms_norm.hpp>
#include <espalier/ops/add.hpp>
#include <espalier/ops/linear_cross_entropy.hpp>
#include <espalier/ops/load_balancing_loss.hpp>

namespace espalier {

template <FloatElement T, Device D = Cpu>
class Mixtral {
 public:
  using WeightSource = Function<AnyTensor(const std::string& name)>;
  enum class Base { frozen, trainable };

  /// `weights` gives each tensor by its name, [out, in] for matrices. Trainable weights are copied
  /// to acc_t<T>.
  /// @throws ShapeError naming the tensor when its shape does not fit the config.
  Mixtral(const MixtralConfig& config, const WeightSource& weights, Base base = Base::frozen)
      : config_(config) {
    const Loader load{config, weights, base};
    const auto& c = config;
    const std::int64_t h = c.hidden_size;
    embedding_ = {"model.embed_tokens", load("model.embed_tokens.weight", {c.vocab_size, h})};
    for (std::int64_t l = 0; l < c.num_hidden_layers; ++l) {
      layers_.push_back(load.layer("model.layers." + std::to_string(l) + "."));
    }
    norm_ = load.norm("model.norm");
    if (!c.tie_word_embeddings) head_ = load("lm_head.weight", {c.vocab_size, h});
  }

  const MixtralConfig& config() const { return config_; }

  /// Adds trainable adapters on `config.targets` of every layer; the base stays frozen.
  void add_lora(const LoraConfig& config, std::uint64_t seed) {
    for (const std::string& t : config.targets) {
      bool known = false;
      for (const char* name : {"q", "k", "v", "o", "gate", "w1", "w2", "w3"}) known |= t == name;
      ESP_REQUIRE(known, UsageError, "lora: unknown target '", t,
                  "', expected some of q,k,v,o,gate,w1,w2,w3");
    }
    for (Layer& layer : layers_) {
      layer.attention.add_lora(config, seed);
      layer.moe.add_lora(config, seed);
    }
  }

  /// The trainable leaves, in a fixed order.
  std::vector<NamedParameter> parameters() const {
    std::vector<NamedParameter> out;
    embedding_.collect(out);
    for (const Layer& layer : layers_) {
      layer.input_norm.collect(out);
      layer.attention.collect(out);
      layer.post_norm.collect(out);
      layer.moe.collect(out);
    }
    norm_.collect(out);
    if (head_.requires_grad()) out.push_back({"lm_head.weight", head_});
    return out;
  }

  /// keep[layer] lists the experts that may be chosen; an empty list of layers lifts the mask.
  void mask_experts(const std::vector<std::vector<int>>& keep) {
    ESP_REQUIRE(keep.empty() || keep.size() == layers_.size(), ShapeError,
                "mask_experts: ", keep.size(), " layers, the model has ", layers_.size());
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      std::vector<bool> mask;
      if (!keep.empty()) {
        mask.assign(config_.num_local_experts, false);
        for (const int e : keep[l]) mask.at(e) = true;
      }
      layers_[l].moe.mask_experts(std::move(mask));
    }
  }

  /// Hidden states after the final norm, [N, H].
  Var<T, D> hidden(const PackedTokens& tokens, const MoeObserver<T, D>* observer = nullptr) const {
    return run(tokens, nullptr, observer, nullptr);
  }

  /// The same for continuations: segment s goes on where `caches[s]` ends and is appended to it.
  /// Builds no graph.
  Tensor<T, D> hidden(const PackedTokens& tokens, std::span<KvCache<T, D>* const> caches) const;

  KvCache<T, D> new_cache(std::int64_t capacity) const {
    return {config_.num_hidden_layers, config_.num_key_value_heads * config_.head_dim, capacity};
  }

  /// Rows of hidden states [M, H] -> logits [M, V].
  Tensor<acc_t<T>, D> logits(const Tensor<T, D>& rows) const;
  /// log p(targets[i] | row i) and the most likely id, without holding the logits of all rows.
  TokenLogProbs<acc_t<T>> log_probs(const Tensor<T, D>& rows,
                                    const Tensor<std::int32_t>& targets) const;

  /// targets[i] is the token that row i predicts, -1 where it is not trained on. With
  /// `recompute_layers` the model must stay where it is until backward.
  ModelLoss<acc_t<T>, D> loss(const PackedTokens& tokens, const Tensor<std::int32_t>& targets,
                              const TrainContext* training = nullptr) const;

 private:
  struct Layer {
    RmsNorm<T, D> input_norm;
    Attention<T, D> attention;
    RmsNorm<T, D> post_norm;
    MoeBlock<T, D> moe;
  };

  struct Loader {
    const MixtralConfig& config;
    const WeightSource& weights;
    Base base;

    AnyVar operator()(const std::string& name, Shape shape) const {
      const AnyTensor w = weights(name);
      ESP_REQUIRE(w.shape() == shape, ShapeError, name, ": shape is ", w.shape(), ", expected ",
                  shape, " by config.json");
      if (base == Base::frozen) return AnyVar(w.on(memory_of<D>()));
      return parameter(Tensor<acc_t<T>, D>(converted<acc_t<T>>(w).on(memory_of<D>())));
    }
    Linear<T, D> linear(const std::string& name, std::int64_t out, std::int64_t in) const {
      return {name, (*this)(name + ".weight", {out, in})};
    }
    RmsNorm<T, D> norm(const std::string& name) const {
      return {name, (*this)(name + ".weight", {config.hidden_size}),
              static_cast<float>(config.rms_norm_eps)};
    }
    Layer layer(const std::string& prefix) const {
      const MixtralConfig& c = config;
      const std::string attn = prefix + "self_attn.", moe = prefix + "block_sparse_moe.";
      const std::int64_t h = c.hidden_size, f = c.intermediate_size;
      const std::int64_t q = c.num_attention_heads * c.head_dim;
      const std::int64_t kv = c.num_key_value_heads * c.head_dim;
      const AttentionShape shape{c.num_attention_heads, c.num_key_value_heads, c.head_dim,
                                 c.rope_theta, c.sliding_window};
      // Braces: the members are read in this order, so the first bad tensor is the one that is
      // named.
      return Layer{
          norm(prefix + "input_layernorm"),
          Attention<T, D>{shape, linear(attn + "q_proj", q, h), linear(attn + "k_proj", kv, h),
                          linear(attn + "v_proj", kv, h), linear(attn + "o_proj", h, q)},
          norm(prefix + "post_attention_layernorm"),
          MoeBlock<T, D>{Router<T, D>{linear(moe + "gate", c.num_local_experts, h),
                                      RouterRule{c.num_experts_per_tok}},
                         Experts<T, D>{experts(moe, "w1", f, h), experts(moe, "w2", h, f),
                                       experts(moe, "w3", f, h)}}};
    }
    GroupedLinear<T, D> experts(const std::string& moe, const char* which, std::int64_t out,
                                std::int64_t in) const {
      std::vector<std::string> names;
      std::vector<AnyVar> found;
      for (std::int64_t e = 0; e < config.num_local_experts; ++e) {
        names.push_back(moe + "experts." + std::to_string(e) + "." + which);
        found.push_back((*this)(names.back() + ".weight", {out, in}));
      }
      return {std::move(names), std::move(found)};
    }
  };

  const AnyVar& head() const { return head_ ? head_ : embedding_.table(); }

  static void check(const PackedTokens& tokens) {
    const auto& s = tokens.segments;
    ESP_REQUIRE(!s.empty() && s.front() == 0 && s.back() == tokens.tokens(), ShapeError,
                "hidden: segments end at ", s.empty() ? 0 : s.back(), ", there are ",
                tokens.tokens(), " tokens");
  }

  using LayerOutput = std::pair<Var<T, D>, Var<T, D>>;  // hidden states, router logits

  LayerOutput run_layer(std::size_t l, const Var<T, D>& x, const Tensor<std::int32_t>& positions,
                        const std::vector<std::int64_t>& segments, const TrainContext* training,
                        const MoeObserver<T, D>* observer) const;

  Var<T, D> run(const PackedTokens& tokens, const TrainContext* training,
                const MoeObserver<T, D>* observer, std::vector<Var<T, D>>* router_logits) const;

  MixtralConfig config_;
  TokenEmbedding<T, D> embedding_;
  std::vector<Layer> layers_;
  RmsNorm<T, D> norm_;
  AnyVar head_;  // empty: tied to the embedding
};

template <FloatElement T, Device D>
Tensor<T, D> Mixtral<T, D>::hidden(const PackedTokens& tokens,
                                   std::span<KvCache<T, D>* const> caches) const {
  const NoGrad no_grad;
  check(tokens);
  ESP_REQUIRE(caches.size() + 1 == tokens.segments.size(), ShapeError, "hidden: ", caches.size(),
              " caches for ", tokens.segments.size() - 1, " segments");
  std::vector<std::int64_t> starts;
  for (const auto* cache : caches) starts.push_back(cache->length());
  const auto positions = positions_of(tokens, starts);
  auto h = embedding_(tokens.ids);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    h = add(h, layer.attention(layer.input_norm(h), positions, tokens.segments, caches,
                               static_cast<std::int64_t>(l)));
    h = add(h, layer.moe(layer.post_norm(h)).y);
  }
  for (std::size_t s = 0; s < caches.size(); ++s) {
    caches[s]->advance(tokens.segments[s + 1] - tokens.segments[s]);
  }
  return norm_(h).value();
}

template <FloatElement T, Device D>
Tensor<acc_t<T>, D> Mixtral<T, D>::logits(const Tensor<T, D>& rows) const {
  return linear_logits(rows, head().any());
}

template <FloatElement T, Device D>
TokenLogProbs<acc_t<T>> Mixtral<T, D>::log_probs(const Tensor<T, D>& rows,
                                                 const Tensor<std::int32_t>& targets) const {
  const NoGrad no_grad;
  return linear_log_probs(rows, head().any(), targets);
}

template <FloatElement T, Device D>
ModelLoss<acc_t<T>, D> Mixtral<T, D>::loss(const PackedTokens& tokens,
                                           const Tensor<std::int32_t>& targets,
                                           const TrainContext* training) const {
  std::vector<Var<T, D>> router_logits;
  const bool want_aux = training && training->want_aux;
  const auto h = run(tokens, training, nullptr, want_aux ? &router_logits : nullptr);
  ModelLoss<acc_t<T>, D> loss{linear_cross_entropy(h, head(), targets), {}};
  if (want_aux) loss.aux = load_balancing_loss(router_logits, config_.num_experts_per_tok);
  return loss;
}

template <FloatElement T, Device D>
auto Mixtral<T, D>::run_layer(std::size_t l, const Var<T, D>& x,
                              const Tensor<std::int32_t>& positions,
                              const std::vector<std::int64_t>& segments,
                              const TrainContext* training, const MoeObserver<T, D>* observer) const
    -> LayerOutput {
  const Layer& layer = layers_[l];
  const auto h = add(x, layer.attention(layer.input_norm(x), positions, segments, training));
  const auto moe = layer.moe(layer.post_norm(h), training, observer, static_cast<int>(l));
  return {add(h, moe.y), moe.logits};
}

template <FloatElement T, Device D>
Var<T, D> Mixtral<T, D>::run(const PackedTokens& tokens, const TrainContext* training,
                             const MoeObserver<T, D>* observer,
                             std::vector<Var<T, D>>* router_logits) const {
  check(tokens);
  const auto positions = positions_of(tokens);
  auto h = embedding_(tokens.ids);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    LayerOutput y;
    if (training && training->recompute_layers && !observer) {
      // By value: the caller's arguments may be gone when backward comes.
      const auto again = [this, l, positions, segments = tokens.segments,
                          context = *training](const Var<T, D>& x) {
        return run_layer(l, x, positions, segments, &context, nullptr);
      };
      y = checkpoint(again, h);
    } else {
      y = run_layer(l, h, positions, tokens.segments, training, observer);
    }
    h = y.first;
    if (router_logits) router_logits->push_back(y.second);
  }
  return norm_(h);
}

ESP_COMPILED_TEMPLATE(class Mixtral<float>);
ESP_COMPILED_TEMPLATE(class Mixtral<bf16>);

/// Copies values into the trainable leaves by name: an adapter, a checkpoint of a run.
/// @throws ShapeError naming the parameter when a tensor does not fit; `source` throws for a
/// missing one.
template <FloatElement T>
void load_parameters(const std::vector<NamedParameter>& parameters,
                     const Function<AnyTensor(const std::string& name)>& source) {
  for (const NamedParameter& p : parameters) {
    const AnyTensor from = source(p.name);
    ESP_REQUIRE(from.shape() == p.var.shape(), ShapeError, p.name, ": shape is ", from.shape(),
                ", the model has ", p.var.shape());
    const Tensor<T> values = converted<T>(from);
    const AnyTensor to = p.var.any();
    ESP_REQUIRE(to.dtype() == dtype_of<T>::value, DTypeError, p.name, ": is ", name(to.dtype()),
                ", expected ", name(dtype_of<T>::value));
    to.memory().upload(to.bytes(), values.bytes(), to.size_bytes());
  }
}

}  // namespace espalier
