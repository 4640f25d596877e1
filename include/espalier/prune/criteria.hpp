// SPDX-License-Identifier: Apache-2.0
// Criteria that need no data: of the weights, and of their change by fine-tuning. Per layer l
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
#include <espalier/prune/norms.hpp>
#include <espalier/prune/scores.hpp>

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

/// Is the criterion one of an expert's matrices, rather than of the router or of activations?
[[nodiscard]] inline bool of_experts(const Criterion& c) {
  return std::string_view(c.name).starts_with("expert");
}

[[nodiscard]] inline LayerScores random_scores(const hub::Mixture& model, std::uint64_t seed) {
  LayerScores scores(static_cast<std::size_t>(model.layers));
  std::uint64_t index = 0;
  for (std::size_t l = 0; l < scores.size(); ++l) {
    auto& layer = scores[l];
    for (std::int64_t e = 0; model.has(l) && e < model.experts; ++e) {
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
inline void add_norms(SquaredNorms& sum, const SquaredNorms& more) {
  sum.before += more.before;
  sum.after += more.after;
  sum.delta += more.delta;
}
inline SquaredNorms matrix_norms(const ModelPair& models, const StoredMatrix& matrix,
                                 bool delta_only) {
  SquaredNorms all;
  if (models.adapter == nullptr || !delta_only) {
    for_each_row_norm(models, matrix,
                      [&](std::int64_t, const SquaredNorms& row) { add_norms(all, row); });
  }
  // By the Gram matrices in every case: the bits do not depend on what other criteria are computed.
  const io::LoraFactors f =
      models.adapter ? models.adapter->find(matrix.module) : io::LoraFactors{};
  if (f) all.delta = DeltaRows(f).sum_of_squares();
  return all;
}
}  // namespace detail

struct WeightNormOptions {
  bool router = true, experts = true;
  /// Compute the norm of the change only; with an adapter this does not read the base's experts.
  bool expert_delta_only = false;
  /// Called with the matrices done so far, from any thread, one call at a time.
  std::function<void(std::int64_t)> progress{};
};

/// Each thread reads one matrix at a time, and has sums of its own.
[[nodiscard]] inline WeightNorms weight_norms(const ModelPair& models,
                                              const WeightNormOptions& options) {
  const hub::Mixture& mixture = models.base.mixture();
  const auto layers = static_cast<std::size_t>(mixture.layers);
  const auto experts = static_cast<std::size_t>(mixture.experts);
  WeightNorms out;
  out.router.resize(layers);
  out.experts.resize(layers);
  std::vector<std::size_t> sparse;
  for (std::size_t l = 0; l < layers; ++l) {
    if (!mixture.has(l)) continue;
    sparse.push_back(l);
    out.router[l].resize(experts);
    out.experts[l].resize(experts);
  }
  std::mutex mutex;
  std::int64_t done = 0;
  const auto count = [&] {
    const std::lock_guard lock(mutex);
    ++done;
    if (options.progress) options.progress(done);
  };
  if (options.router) {
    const TensorNames& names = models.base.family().names;
    parallel_for(static_cast<std::int64_t>(sparse.size()), 1, [&](std::int64_t i, std::int64_t) {
      const std::size_t layer = sparse[static_cast<std::size_t>(i)];
      const auto l = static_cast<std::int64_t>(layer);
      for_each_row_norm(models, {names.of(Part::router, l), names.module(Part::router, l)},
                        [&](std::int64_t e, const SquaredNorms& row) {
                          out.router[layer][static_cast<std::size_t>(e)] = row;
                        });
      count();
    });
  }
  if (!options.experts) return out;
  struct Task {
    std::size_t layer, expert;
    StoredMatrix matrix;
    SquaredNorms norms = {};
  };
  std::vector<Task> tasks;
  for (const std::size_t layer : sparse) {
    for (std::size_t e = 0; e < experts; ++e) {
      for (StoredMatrix& m :
           expert_matrices(models.base, static_cast<int>(layer), static_cast<int>(e))) {
        tasks.push_back({layer, e, std::move(m)});
      }
    }
  }
  parallel_for(static_cast<std::int64_t>(tasks.size()), 1, [&](std::int64_t i, std::int64_t) {
    Task& task = tasks[static_cast<std::size_t>(i)];
    task.norms = detail::matrix_norms(models, task.matrix, options.expert_delta_only);
    count();
  });
  for (const Task& task : tasks) {
    detail::add_norms(out.experts[task.layer][task.expert], task.norms);
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

/// @throws FormatError where the tuned checkpoint is not of the same model as the base
inline void check_same_model(const hub::Checkpoint& base, const hub::Checkpoint& tuned) {
  const auto check = [&](const char* key, std::int64_t x, std::int64_t y) {
    ESP_REQUIRE(x == y, FormatError, tuned.folder().string(), ": ", key, " is ", y, ", but ", x,
                " in ", base.folder().string(),
                "; expected a fine-tuned version of the same model");
  };
  check("num_hidden_layers", base.mixture().layers, tuned.mixture().layers);
  check("the number of experts", base.mixture().experts, tuned.mixture().experts);
  for (const std::string& name : base.names()) {
    if (!base.expert_names().find(name)) continue;
    const io::TensorInfo* other = tuned.find(name);
    ESP_REQUIRE(other != nullptr && other->shape == base.at(name).shape, FormatError,
                tuned.folder().string(), ": tensor \"", name, "\" is ",
                other == nullptr ? "missing" : io::shape_text(*other), ", but ",
                io::shape_text(base.at(name)), " in ", base.folder().string(),
                "; expected a fine-tuned version of the same model");
  }
}

}  // namespace espalier::prune
