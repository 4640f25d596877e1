// SPDX-License-Identifier: Apache-2.0
// A pre-norm decoder, dense or with mixtures of experts; every family of models/families/
// configures it. Weights are looked up by their Hugging Face names and stay frozen in their stored
// type. The parameters are LoRA adapters or, for training from scratch, the weights.
//   hidden = embedding; per layer: h += attention(rms(h)); h += feed_forward(rms(h)); rms at the
//   end; head [V, H]
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <espalier/autograd/recompute.hpp>
#include <espalier/core/function.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/models/decoder_config.hpp>
#include <espalier/models/model_loss.hpp>
#include <espalier/models/weights.hpp>
#include <espalier/nn/attention.hpp>
#include <espalier/nn/embedding.hpp>
#include <espalier/nn/moe_block.hpp>
#include <espalier/nn/rms_norm.hpp>
#include <espalier/ops/add.hpp>
#include <espalier/ops/linear_cross_entropy.hpp>
#include <espalier/ops/load_balancing_loss.hpp>

namespace espalier {

template <FloatElement T, Device D = Cpu>
class Decoder {
 public:
  using WeightSource = espalier::WeightSource;
  enum class Base { frozen, trainable };

  /// `weights` gives each tensor by its name as config.names has it, [out, in] for matrices.
  /// Trainable weights are copied to acc_t<T>.
  /// @throws ShapeError naming the tensor when its shape does not fit the config.
  Decoder(const DecoderConfig& config, const WeightSource& weights, Base base = Base::frozen)
      : config_(config) {
    const Loader load{Weights(config, weights), base};
    embedding_ = {config.names.module(Part::embedding, -1), load(Part::embedding)};
    for (std::int64_t l = 0; l < config.num_hidden_layers; ++l) {
      layers_.push_back(load.layer(static_cast<int>(l)));
    }
    norm_ = load.norm(Part::final_norm, -1, config.rms_norm_eps);
    if (!config.tie_word_embeddings) head_ = load(Part::head);
  }

  const DecoderConfig& config() const { return config_; }

  /// Adds trainable adapters on `config.targets` of every layer; the base stays frozen.
  /// @throws UsageError for a target that the model does not have
  void add_lora(LoraConfig config, std::uint64_t seed) {
    config.targets = resolve_targets(config_, config.targets);
    for (Layer& layer : layers_) {
      layer.attention.add_lora(config, seed);
      layer.moe.add_lora(config, seed);
      if (layer.dense) layer.dense.add_lora(config, seed);
    }
  }

  /// What an optimizer updates, in a fixed order. Frozen tensors are not among them: what is saved
  /// must come from `named_tensors`.
  std::vector<NamedParameter> parameters() const { return collect(Listed::trained); }
  /// Every tensor of the model, in a fixed order; `trained()` says which get gradients. Names are
  /// those of modules: fused experts come one by one, a head tied to the embedding does not come.
  std::vector<NamedParameter> named_tensors() const { return collect(Listed::all); }

  /// Restricts routing: keep[layer] lists the experts that may be chosen, and is empty for a layer
  /// without a mixture. An empty `keep` removes the mask.
  void mask_experts(const std::vector<std::vector<int>>& keep) {
    ESP_REQUIRE(keep.empty() || keep.size() == layers_.size(), ShapeError,
                "mask_experts: ", keep.size(), " layers, the model has ", layers_.size());
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      std::vector<bool> mask;
      if (!keep.empty() && !layers_[l].dense) {
        mask.assign(static_cast<std::size_t>(config_.mixture.experts), false);
        for (const int e : keep[l]) mask.at(static_cast<std::size_t>(e)) = true;
      }
      layers_[l].moe.mask_experts(std::move(mask));
    }
  }

  /// Hidden states after the final norm, [N, H].
  Var<T, D> hidden(const PackedTokens& tokens, const MoeObserver<T, D>* observer = nullptr) const {
    return run(tokens, nullptr, observer, nullptr);
  }

  /// The same with KV caches: segment s continues `caches[s]` and is appended to it. Builds no
  /// graph.
  Tensor<T, D> hidden(const PackedTokens& tokens, std::span<KvCache<T, D>* const> caches) const;

  KvCache<T, D> new_cache(std::int64_t capacity) const {
    const AttentionConfig& a = config_.attention;
    const std::int64_t heads = a.latent.kv_rank > 0 ? a.heads : a.kv_heads;
    return {config_.num_hidden_layers, heads * a.head_dim, capacity};
  }

  /// Rows of hidden states [M, H] -> logits [M, V].
  Tensor<acc_t<T>, D> logits(const Tensor<T, D>& rows) const;
  /// log p(targets[i] | row i) and the most likely id, without materialising all logits.
  TokenLogProbs<acc_t<T>> log_probs(const Tensor<T, D>& rows,
                                    const Tensor<std::int32_t>& targets) const;

  /// targets[i] is the token that row i predicts, -1 for rows that are not trained on. With
  /// `recompute_layers` the model must outlive backward and must not be moved.
  ModelLoss<acc_t<T>, D> loss(const PackedTokens& tokens, const Tensor<std::int32_t>& targets,
                              const TrainContext* training = nullptr) const;

 private:
  struct Layer {
    RmsNorm<T, D> input_norm;
    Attention<T, D> attention;
    RmsNorm<T, D> post_norm;
    MoeBlock<T, D> moe;
    FeedForward<T, D> dense;  // in place of the mixture
  };

  struct Loader {
    Weights weights;
    Base base;

    /// Braces evaluate in order, so the error names the first bad tensor.
    Layer layer(int l) const {
      const DecoderConfig& c = weights.config();
      return {norm(Part::input_norm, l, c.rms_norm_eps), attention(l),
              norm(Part::post_norm, l, c.rms_norm_eps),
              c.has_mixture(l) ? mixture(l) : MoeBlock<T, D>(),
              c.has_mixture(l) ? FeedForward<T, D>()
                               : feed_forward(l, Part::gate, Part::down, Part::up)};
    }
    AnyVar operator()(Part part, int l = -1, int expert = -1) const {
      return leaf(weights.get(part, l, expert));
    }
    RmsNorm<T, D> norm(Part part, int l, double eps) const {
      return {name(part, l), (*this)(part, l), static_cast<float>(eps)};
    }

   private:
    std::string name(Part part, int l, int expert = -1) const {
      return weights.config().names.module(part, l, expert);
    }
    AnyVar leaf(const AnyTensor& w) const {
      if (base == Base::frozen) return AnyVar(w.on(memory_of<D>()));
      return parameter(Tensor<acc_t<T>, D>(converted<acc_t<T>>(w).on(memory_of<D>())));
    }
    AnyVar bias(Part part, int l, int expert = -1) const {
      const AnyTensor b = weights.bias(part, l, expert);
      return b ? leaf(b) : AnyVar();
    }
    /// Empty where the model has no such part.
    Linear<T, D> linear(Part part, int l) const {
      if (!weights.has(part, l)) return {};
      return {name(part, l), (*this)(part, l), bias(part, l)};
    }
    Attention<T, D> attention(int l) const {
      const DecoderConfig& c = weights.config();
      AttentionConfig attention = c.attention;
      attention.window = c.window(l);
      AttentionWeights<T, D> w;
      if (weights.has(Part::sinks, l)) {
        w.sinks_name = name(Part::sinks, l);
        w.sinks = (*this)(Part::sinks, l);
      }
      if (attention.latent.kv_rank > 0) {
        w.latent = latent(l);
      } else {
        w.q = linear(Part::q, l);
        w.k = linear(Part::k, l);
        w.v = linear(Part::v, l);
      }
      w.o = linear(Part::o, l);
      if (attention.q_k_norm) {
        w.q_norm = norm(Part::q_norm, l, c.rms_norm_eps);
        w.k_norm = norm(Part::k_norm, l, c.rms_norm_eps);
      }
      return {attention, std::move(w)};
    }
    LatentProjection<T, D> latent(int l) const {
      constexpr double kEps = 1e-6;  // fixed, as in transformers; not rms_norm_eps
      LatentProjection<T, D> w;
      w.q = linear(Part::q, l);
      w.q_a = linear(Part::q_a, l);
      if (weights.has(Part::q_a, l)) w.q_a_norm = norm(Part::q_a_norm, l, kEps);
      w.q_b = linear(Part::q_b, l);
      w.kv_a = linear(Part::kv_a, l);
      w.kv_a_norm = norm(Part::kv_a_norm, l, kEps);
      w.kv_b = linear(Part::kv_b, l);
      return w;
    }
    FeedForward<T, D> feed_forward(int l, Part gate, Part down, Part up) const {
      return {linear(gate, l), linear(down, l), linear(up, l)};
    }
    MoeBlock<T, D> mixture(int l) const {
      const MixtureConfig& m = weights.config().mixture;
      AnyTensor bias;
      std::string bias_name;
      if (m.selection_bias) {
        bias = weights.get(Part::selection_bias, l);
        bias_name = name(Part::selection_bias, l);
      }
      return {Router<T, D>{linear(Part::router, l), m.router, bias, bias_name},
              Experts<T, D>{experts(Part::expert_gate, l), experts(Part::expert_down, l),
                            experts(Part::expert_up, l), m.activation},
              SharedExpert<T, D>{
                  m.shared_width > 0
                      ? feed_forward(l, Part::shared_gate, Part::shared_down, Part::shared_up)
                      : FeedForward<T, D>(),
                  linear(Part::shared_router, l)}};
    }
    GroupedLinear<T, D> experts(Part part, int l) const {
      const MixtureConfig& m = weights.config().mixture;
      std::vector<std::string> names;
      std::vector<AnyVar> found, biases;
      for (int e = 0; e < static_cast<int>(m.experts); ++e) {
        names.push_back(name(part, l, e));
        found.push_back((*this)(part, l, e));
        if (m.expert_bias) biases.push_back(bias(part, l, e));
      }
      return {std::move(names), std::move(found), std::move(biases)};
    }
  };

  std::vector<NamedParameter> collect(Listed listed) const {
    std::vector<NamedParameter> out;
    embedding_.collect(out, listed);
    for (const Layer& layer : layers_) {
      layer.input_norm.collect(out, listed);
      layer.attention.collect(out, listed);
      layer.post_norm.collect(out, listed);
      layer.moe.collect(out, listed);
      layer.dense.collect(out, listed);
    }
    norm_.collect(out, listed);
    collect_tensor(out, listed, config_.names.of(Part::head), head_);
    return out;
  }

  const AnyVar& head() const { return head_ ? head_ : embedding_.table(); }
  /// Hidden states scaled for the head.
  Tensor<T, D> for_head(const Tensor<T, D>& rows) const {
    if (config_.logits_divisor == 1) return rows;
    const NoGrad no_grad;
    return scale(Var<T, D>(rows), 1 / config_.logits_divisor).value();
  }
  static Var<T, D> scaled(const Var<T, D>& x, double factor) {
    return factor == 1 ? x : scale(x, factor);
  }
  Var<T, D> embed(const std::vector<std::int32_t>& ids) const {
    return scaled(embedding_(ids), config_.embedding_multiplier);
  }

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

  DecoderConfig config_;
  TokenEmbedding<T, D> embedding_;
  std::vector<Layer> layers_;
  RmsNorm<T, D> norm_;
  AnyVar head_;  // empty: tied to the embedding
};

template <FloatElement T, Device D>
Tensor<T, D> Decoder<T, D>::hidden(const PackedTokens& tokens,
                                   std::span<KvCache<T, D>* const> caches) const {
  const NoGrad no_grad;
  check(tokens);
  ESP_REQUIRE(caches.size() + 1 == tokens.segments.size(), ShapeError, "hidden: ", caches.size(),
              " caches for ", tokens.segments.size() - 1, " segments");
  std::vector<std::int64_t> starts;
  for (const auto* cache : caches) starts.push_back(cache->length());
  const auto positions = positions_of(tokens, starts);
  auto h = embed(tokens.ids);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const auto attended = layer.attention(layer.input_norm(h), positions, tokens.segments, caches,
                                          static_cast<std::int64_t>(l));
    h = add(h, scaled(attended, config_.residual_multiplier));
    const auto normed = layer.post_norm(h);
    h = add(h, scaled(layer.dense ? layer.dense(normed) : layer.moe(normed).y,
                      config_.residual_multiplier));
  }
  for (std::size_t s = 0; s < caches.size(); ++s) {
    caches[s]->advance(tokens.segments[s + 1] - tokens.segments[s]);
  }
  return norm_(h).value();
}

template <FloatElement T, Device D>
Tensor<acc_t<T>, D> Decoder<T, D>::logits(const Tensor<T, D>& rows) const {
  return linear_logits(for_head(rows), head().any());
}

template <FloatElement T, Device D>
TokenLogProbs<acc_t<T>> Decoder<T, D>::log_probs(const Tensor<T, D>& rows,
                                                 const Tensor<std::int32_t>& targets) const {
  const NoGrad no_grad;
  return linear_log_probs(for_head(rows), head().any(), targets);
}

template <FloatElement T, Device D>
ModelLoss<acc_t<T>, D> Decoder<T, D>::loss(const PackedTokens& tokens,
                                           const Tensor<std::int32_t>& targets,
                                           const TrainContext* training) const {
  std::vector<Var<T, D>> router_logits;
  const bool want_aux = training && training->want_aux;
  const auto h = run(tokens, training, nullptr, want_aux ? &router_logits : nullptr);
  const auto rows = scaled(h, 1 / config_.logits_divisor);
  ModelLoss<acc_t<T>, D> loss{linear_cross_entropy(rows, head(), targets), {}};
  if (!router_logits.empty()) {
    const RouterRule& rule = config_.mixture.router;
    ESP_REQUIRE(rule.score == RouterRule::Score::softmax, UsageError,
                "load_balancing_loss: is defined for routers with a softmax, that of ",
                config_.model_type, " has a sigmoid; train it without");
    loss.aux = load_balancing_loss(router_logits, rule.top_k);
  }
  return loss;
}

template <FloatElement T, Device D>
auto Decoder<T, D>::run_layer(std::size_t l, const Var<T, D>& x,
                              const Tensor<std::int32_t>& positions,
                              const std::vector<std::int64_t>& segments,
                              const TrainContext* training, const MoeObserver<T, D>* observer) const
    -> LayerOutput {
  const Layer& layer = layers_[l];
  const double factor = config_.residual_multiplier;
  const auto attended = layer.attention(layer.input_norm(x), positions, segments, training);
  const auto h = add(x, scaled(attended, factor));
  const auto normed = layer.post_norm(h);
  if (layer.dense) return {add(h, scaled(layer.dense(normed, training), factor)), {}};
  const auto moe = layer.moe(normed, training, observer, static_cast<int>(l));
  return {add(h, scaled(moe.y, factor)), moe.logits};
}

template <FloatElement T, Device D>
Var<T, D> Decoder<T, D>::run(const PackedTokens& tokens, const TrainContext* training,
                             const MoeObserver<T, D>* observer,
                             std::vector<Var<T, D>>* router_logits) const {
  check(tokens);
  const auto positions = positions_of(tokens);
  auto h = embed(tokens.ids);
  for (std::size_t l = 0; l < layers_.size(); ++l) {
    LayerOutput y;
    if (training && training->recompute_layers && !observer) {
      // By value: the caller's arguments may not outlive backward.
      const auto again = [this, l, positions, segments = tokens.segments,
                          context = *training](const Var<T, D>& x) {
        return run_layer(l, x, positions, segments, &context, nullptr);
      };
      y = recompute(again, h);
    } else {
      y = run_layer(l, h, positions, tokens.segments, training, observer);
    }
    h = y.first;
    if (router_logits && y.second) router_logits->push_back(y.second);
  }
  return norm_(h);
}

ESP_COMPILED_TEMPLATE(class Decoder<float>);
ESP_COMPILED_TEMPLATE(class Decoder<bf16>);

/// Copies values into parameters by name: an adapter, the saved state of a run.
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
