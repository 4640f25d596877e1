// SPDX-License-Identifier: Apache-2.0
// Criteria that need no data: from the weights, or from what fine-tuning did to them. Per layer l
// and expert e, with router row g and the three matrices w1, w2, w3 taken as one vector w:
//   router_norm_drift  | ‖g after‖ - ‖g before‖ |       router_delta  ‖g after - g before‖
//   expert_delta  ‖w after - w before‖                  expert_delta_relative  that / ‖w before‖
//   expert_norm  ‖w‖,  router_norm  ‖g‖  of the tuned model        random  uniform, from the seed
// They rank experts weakly on their own; compare them with the activation criteria and with random.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/criteria.hpp is host-only; include it from a .cpp"
#endif

#include <functional>
#include <mutex>

#include <espalier/core/random.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/prune/expert_name.hpp>
#include <espalier/prune/norms.hpp>

namespace espalier::prune {

enum class CriterionKind { tuning, weights, activations, random };

struct Criterion {
  const char* name;
  CriterionKind kind;
  const char* meaning;
};

inline constexpr Criterion kCriteria[] = {
    {"router_norm_drift", CriterionKind::tuning, "change of the router row's norm"},
    {"router_delta", CriterionKind::tuning, "norm of the router row's change"},
    {"expert_delta", CriterionKind::tuning, "norm of the change of w1, w2, w3 together"},
    {"expert_delta_relative", CriterionKind::tuning, "expert_delta over the norm before"},
    {"expert_norm", CriterionKind::weights, "norm of w1, w2, w3 together"},
    {"router_norm", CriterionKind::weights, "norm of the router row"},
    {"frequency", CriterionKind::activations, "tokens routed to the expert"},
    {"soft_frequency", CriterionKind::activations, "sum of the gates of routed tokens"},
    {"ean", CriterionKind::activations, "sum of the norms of the expert's outputs"},
    {"reap", CriterionKind::activations, "mean of gate times output norm"},
    {"man", CriterionKind::activations, "mean of the output norm"},
    {"msan", CriterionKind::activations, "mean of the squared output norm"},
    {"max_activation", CriterionKind::activations, "largest absolute output component"},
    {"random", CriterionKind::random, "uniform in [0, 1), from the seed"},
};

/// nullptr for an unknown name.
[[nodiscard]] inline const Criterion* find_criterion(std::string_view name) {
  for (const Criterion& c : kCriteria) {
    if (name == c.name) return &c;
  }
  return nullptr;
}

[[nodiscard]] inline LayerScores random_scores(const MixtralConfig& model, std::uint64_t seed) {
  LayerScores scores(static_cast<std::size_t>(model.num_hidden_layers));
  std::uint64_t index = 0;
  for (auto& layer : scores) {
    for (std::int64_t e = 0; e < model.num_local_experts; ++e) {
      const auto words = Philox(seed).block(index++);
      const std::uint64_t bits = std::uint64_t{words[0]} << 21 ^ words[1] >> 11;
      layer.push_back(static_cast<double>(bits) * 0x1p-53);
    }
  }
  return scores;
}

/// Squared norms [layer][expert]: of the router's rows, and of w1, w2, w3 together.
struct WeightNorms {
  std::vector<std::vector<SquaredNorms>> router, experts;
};

namespace detail {
inline SquaredNorms matrix_norms(const ModelPair& models, const std::string& module,
                                 bool delta_only) {
  SquaredNorms all;
  if (models.adapter == nullptr || !delta_only) {
    for_each_row_norm(models, module, [&](std::int64_t, const SquaredNorms& row) {
      all.before += row.before;
      all.after += row.after;
      all.delta += row.delta;
    });
  }
  // Always by the Gram matrices: the same bits whether or not other criteria are asked for.
  const io::LoraFactors f = models.adapter ? models.adapter->find(module) : io::LoraFactors{};
  if (f) all.delta = DeltaRows(f).sum_of_squares();
  return all;
}
}  // namespace detail

struct WeightNormOptions {
  bool router = true, experts = true;
  /// Only the norm of the change is needed: with an adapter the base's experts are not read then.
  bool expert_delta_only = false;
  /// Called with the matrices done so far, from any thread, one call at a time.
  std::function<void(std::int64_t)> progress{};
};

/// Reads one matrix at a time and thread. Threads share no sum.
[[nodiscard]] inline WeightNorms weight_norms(const ModelPair& models,
                                              const WeightNormOptions& options) {
  const MixtralConfig& c = models.base.config();
  const auto layers = static_cast<std::size_t>(c.num_hidden_layers);
  const auto experts = static_cast<std::size_t>(c.num_local_experts);
  constexpr const char* kParts[] = {"w1", "w2", "w3"};
  WeightNorms out;
  out.router.assign(layers, std::vector<SquaredNorms>(experts));
  out.experts.assign(layers, std::vector<SquaredNorms>(experts));
  std::vector<SquaredNorms> parts(layers * experts * 3);
  std::mutex mutex;
  std::int64_t done = 0;
  const auto count = [&] {
    const std::lock_guard lock(mutex);
    ++done;
    if (options.progress) options.progress(done);
  };
  if (options.router) {
    parallel_for(c.num_hidden_layers, 1, [&](std::int64_t l, std::int64_t) {
      const auto layer = static_cast<std::size_t>(l);
      for_each_row_norm(models, moe_prefix(layer) + "gate",
                        [&](std::int64_t e, const SquaredNorms& row) {
                          out.router[layer][static_cast<std::size_t>(e)] = row;
                        });
      count();
    });
  }
  if (!options.experts) return out;
  parallel_for(static_cast<std::int64_t>(parts.size()), 1, [&](std::int64_t i, std::int64_t) {
    const auto task = static_cast<std::size_t>(i);
    const std::size_t expert = task / 3 % experts, layer = task / 3 / experts;
    const std::string module = expert_prefix(layer, static_cast<int>(expert)) + kParts[task % 3];
    parts[task] = detail::matrix_norms(models, module, options.expert_delta_only);
    count();
  });
  for (std::size_t i = 0; i < parts.size(); ++i) {
    SquaredNorms& sum = out.experts[i / 3 / experts][i / 3 % experts];
    sum.before += parts[i].before;
    sum.after += parts[i].after;
    sum.delta += parts[i].delta;
  }
  return out;
}

/// One of the criteria of kind `tuning` or `weights`, from the norms.
[[nodiscard]] inline LayerScores weight_scores(std::string_view criterion,
                                               const WeightNorms& norms) {
  const bool router = criterion.starts_with("router");
  LayerScores scores;
  for (const auto& layer : router ? norms.router : norms.experts) {
    scores.emplace_back();
    for (const SquaredNorms& n : layer) {
      const double before = std::sqrt(n.before), after = std::sqrt(n.after);
      const double delta = std::sqrt(n.delta);
      double score = delta;  // router_delta, expert_delta
      if (criterion == "router_norm_drift") score = std::abs(after - before);
      if (criterion.ends_with("_norm")) score = after;
      if (criterion == "expert_delta_relative") score = delta == 0 ? 0.0 : delta / before;
      scores.back().push_back(score);
    }
  }
  return scores;
}

/// @throws FormatError when the tuned checkpoint is another model than the base
inline void check_same_model(const io::Checkpoint& base, const io::Checkpoint& tuned) {
  const MixtralConfig &a = base.config(), &b = tuned.config();
  const auto check = [&](const char* key, std::int64_t x, std::int64_t y) {
    ESP_REQUIRE(x == y, FormatError, tuned.folder().string(), ": ", key, " is ", y, ", but ", x,
                " in ", base.folder().string(),
                "; expected a fine-tuned version of the same model");
  };
  check("num_hidden_layers", a.num_hidden_layers, b.num_hidden_layers);
  check("num_local_experts", a.num_local_experts, b.num_local_experts);
  check("hidden_size", a.hidden_size, b.hidden_size);
  check("intermediate_size", a.intermediate_size, b.intermediate_size);
}

}  // namespace espalier::prune
