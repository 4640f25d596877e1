// SPDX-License-Identifier: Apache-2.0
// Scoring the experts of a checkpoint as an object: what the program analyze does, for a program of
// one's own.
//   prune::Analysis analysis({.model = "mixtral", .calibration = "texts.jsonl",
//                             .criteria = {"reap", "frequency"}});
//   const prune::Scores scores = analysis.run();
//   prune::write_scores("scores", scores);
//   prune::write_heatmaps("scores", scores);
// Criteria of weights and of fine-tuning read the checkpoint once (criteria.hpp); criteria of
// activations take one forward pass over the calibration texts (activation_scores.hpp).
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/analysis.hpp is host-only; include it from a .cpp"
#endif

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <espalier/hub/load_model.hpp>
#include <espalier/prune/calibrate.hpp>
#include <espalier/prune/criteria.hpp>

namespace espalier::prune {

/// The calibration pass of a checkpoint's model, computing in T on D.
template <FloatElement T = float, Device D = Cpu>
[[nodiscard]] ActivationScores calibrate_checkpoint(
    const hub::Checkpoint& checkpoint, const std::string& adapter, const data::CalibrationSet& set,
    const std::function<void(std::int64_t)>& progress) {
  return calibrate(hub::load_model<T, D>(checkpoint, adapter), set, progress);
}

/// An instance of calibrate_checkpoint, for those who choose type and device at run time.
using CalibrateCheckpoint = std::function<ActivationScores(
    const hub::Checkpoint&, const std::string& adapter, const data::CalibrationSet&,
    const std::function<void(std::int64_t)>& progress)>;

struct AnalysisConfig {
  std::string model = {};  // checkpoint folder in Hugging Face layout
  /// The same model after fine-tuning: a checkpoint folder or a PEFT adapter folder. Norms and
  /// activations are of this model, changes from `model` to this one. Both empty: none.
  std::string tuned = {}, adapter = {};
  std::string calibration = {};            // JSONL file (data/records.hpp); empty: none
  std::vector<std::string> criteria = {};  // names of kCriteria; empty: all that are possible
  std::int64_t max_tokens = 0;             // of calibration; 0: the whole file
  std::uint64_t seed = 0;                  // of the criterion "random"
  /// How the calibration pass computes, and what the provenance calls it.
  CalibrateCheckpoint calibrate = calibrate_checkpoint<float, Cpu>;
  std::string dtype = "f32";
};

struct AnalysisProgress {
  std::string work, unit;
  std::int64_t done = 0, total = 0;
};

class Analysis {
 public:
  /// Opens the checkpoints and chooses the criteria; measures nothing.
  /// @throws UsageError for a criterion that is unknown, stands twice, or lacks its input;
  /// FormatError, IoError
  explicit Analysis(AnalysisConfig config);
  Analysis(const Analysis&) = delete;
  Analysis& operator=(const Analysis&) = delete;

  /// Measures. A criterion that is the same for all experts of each layer is left out, or refused
  /// with a UsageError where it was asked for by name.
  [[nodiscard]] Scores run();

  /// Called from any thread, one call at a time; `done` is 0 at the beginning of each work. May
  /// throw to end the analysis.
  std::function<void(const AnalysisProgress&)> progress;

  const hub::Checkpoint& base() const { return base_; }
  /// Criteria that were left out so far, and why: a line each.
  const std::vector<std::string>& notes() const { return notes_; }

 private:
  void choose_criteria();
  void leave_out_impossible();
  void leave_out_constant(Scores& scores);
  bool has_input(CriterionKind kind) const;
  bool any_of_kind(CriterionKind kind) const;
  WeightNorms measure_weights() const;
  ActivationScores measure_activations(io::Json& provenance) const;
  std::function<void(std::int64_t)> progress_of(std::string work, std::string unit,
                                                std::int64_t total) const;

  AnalysisConfig config_;
  hub::Checkpoint base_;
  std::optional<hub::Checkpoint> tuned_;
  std::optional<io::Adapter> adapter_;
  std::vector<Criterion> criteria_;
  std::vector<std::string> notes_;
};

}  // namespace espalier::prune

#ifdef ESP_BODIES
#include <algorithm>

#include <espalier/hub/fingerprint.hpp>
#include <espalier/io/sha256.hpp>

namespace espalier::prune {

ESP_INLINE Analysis::Analysis(AnalysisConfig config)
    : config_(std::move(config)), base_(config_.model) {
  hub::require_mixture(base_, "score");
  choose_criteria();
  if (any_of_kind(CriterionKind::activations)) (void)base_.config();
  if (!config_.tuned.empty()) check_same_model(base_, tuned_.emplace(config_.tuned));
  if (config_.adapter.empty()) return;
  adapter_ = io::read_adapter(config_.adapter);
  hub::check_adapter_fits(*adapter_, base_.config(), config_.adapter);
}

ESP_INLINE bool Analysis::has_input(CriterionKind kind) const {
  if (kind == CriterionKind::tuning) return !config_.tuned.empty() || !config_.adapter.empty();
  if (kind == CriterionKind::activations) return !config_.calibration.empty();
  return true;
}

ESP_INLINE bool Analysis::any_of_kind(CriterionKind kind) const {
  return std::any_of(criteria_.begin(), criteria_.end(),
                     [&](const Criterion& c) { return c.kind == kind; });
}

ESP_INLINE void Analysis::choose_criteria() {
  if (config_.criteria.empty()) {
    for (const Criterion& c : kCriteria) {
      if (has_input(c.kind)) criteria_.push_back(c);
    }
    leave_out_impossible();
    return;
  }
  for (const std::string& name : config_.criteria) {
    const Criterion* c = find_criterion(name);
    ESP_REQUIRE(c != nullptr, UsageError, "unknown criterion \"", name, "\"");
    ESP_REQUIRE(has_input(c->kind), UsageError, "criterion \"", name, "\" needs ",
                c->kind == CriterionKind::tuning ? "a fine-tuned checkpoint or an adapter"
                                                 : "calibration texts");
    for (const Criterion& other : criteria_) {
      ESP_REQUIRE(name != other.name, UsageError, "criterion \"", name, "\" stands twice");
    }
    criteria_.push_back(*c);
  }
}

/// Removes what this checkpoint does not allow: norms of experts whose weights are no numbers,
/// activations where there is no forward pass.
ESP_INLINE void Analysis::leave_out_impossible() {
  const auto leave_out = [&](const std::string& why, const auto& impossible) {
    std::string names;
    std::erase_if(criteria_, [&](const Criterion& c) {
      if (!impossible(c)) return false;
      names += (names.empty() ? "" : ", ") + std::string(c.name);
      return true;
    });
    if (!names.empty()) notes_.push_back("left out " + names + ": " + why);
  };
  const std::vector<bool>& sparse = base_.mixture().sparse;
  const auto layer = std::find(sparse.begin(), sparse.end(), true) - sparse.begin();
  try {
    (void)expert_matrices(base_, static_cast<int>(layer), 0);
  } catch (const UnsupportedError& e) {
    leave_out(e.what(), [](const Criterion& c) { return of_experts(c); });
  }
  if (base_.computable()) return;
  leave_out(base_.why_not_computable(),
            [](const Criterion& c) { return c.kind == CriterionKind::activations; });
}

/// The experts cannot be told apart by such a criterion, for instance where an adapter changes none
/// of them.
ESP_INLINE void Analysis::leave_out_constant(Scores& scores) {
  std::erase_if(scores.criteria, [&](const auto& criterion) {
    const std::string& name = criterion.first;
    for (const std::vector<double>& layer : criterion.second) {
      if (std::adjacent_find(layer.begin(), layer.end(), std::not_equal_to<>()) != layer.end()) {
        return false;
      }
    }
    const std::string why = "criterion " + name +
                            " is the same for all experts of each layer, it cannot choose" +
                            (find_criterion(name)->kind == CriterionKind::tuning
                                 ? ": fine-tuning did not touch what it looks at"
                                 : "");
    ESP_REQUIRE(config_.criteria.empty(), UsageError, why);
    notes_.push_back("left out: " + why);
    return true;
  });
}

ESP_INLINE std::function<void(std::int64_t)> Analysis::progress_of(std::string work,
                                                                   std::string unit,
                                                                   std::int64_t total) const {
  std::function<void(std::int64_t)> report =
      [this, now = AnalysisProgress{std::move(work), std::move(unit), 0, total}](
          std::int64_t done) mutable {
        now.done = done;
        if (progress) progress(now);
      };
  report(0);
  return report;
}

ESP_INLINE WeightNorms Analysis::measure_weights() const {
  WeightNormOptions options{false, false, true, {}};
  for (const Criterion& c : criteria_) {
    if (c.kind != CriterionKind::tuning && c.kind != CriterionKind::weights) continue;
    options.router |= !of_experts(c);
    options.experts |= of_experts(c);
    options.expert_delta_only &= !of_experts(c) || std::string_view(c.name) == "expert_delta";
  }
  const hub::Mixture& mixture = base_.mixture();
  std::int64_t matrices = 0;
  for (std::size_t l = 0; l < mixture.sparse.size(); ++l) {
    if (!mixture.has(l)) continue;
    if (options.router) ++matrices;
    if (!options.experts) continue;
    const auto per_expert = expert_matrices(base_, static_cast<int>(l), 0).size();
    matrices += mixture.experts * static_cast<std::int64_t>(per_expert);
  }
  const std::string& model = tuned_ ? config_.tuned : config_.model;
  options.progress = progress_of("weights of " + model, "matrices", matrices);
  return weight_norms({base_, tuned_ ? &*tuned_ : nullptr, adapter_ ? &*adapter_ : nullptr},
                      options);
}

ESP_INLINE ActivationScores Analysis::measure_activations(io::Json& provenance) const {
  const hub::Checkpoint& checkpoint = tuned_ ? *tuned_ : base_;
  const auto words = text::ChatTokenizer::load(checkpoint.folder());
  const data::CalibrationSet set = data::read_calibration(
      config_.calibration, data::record_encoder(words, checkpoint.config()), config_.max_tokens);
  provenance["calibration_sha256"] = set.file_sha256;
  provenance["calibration_sequences"] = set.sequences.size();
  provenance["calibration_tokens"] = set.tokens;
  provenance["dtype"] = config_.dtype;
  return config_.calibrate(checkpoint, config_.adapter, set,
                           progress_of("calibration", "tokens", set.tokens));
}

ESP_INLINE Scores Analysis::run() {
  Scores scores;
  scores.provenance["model_config_sha256"] =
      io::sha256(io::read_text(base_.folder() / "config.json"));
  scores.provenance["model_fingerprint"] = hub::fingerprint_of_weights(base_);
  if (tuned_) scores.provenance["tuned"] = config_.tuned;
  if (adapter_) scores.provenance["adapter"] = config_.adapter;
  scores.provenance["seed"] = config_.seed;
  std::optional<WeightNorms> norms;
  if (any_of_kind(CriterionKind::tuning) || any_of_kind(CriterionKind::weights)) {
    norms = measure_weights();
  }
  std::optional<ActivationScores> activations;
  if (any_of_kind(CriterionKind::activations)) {
    activations = measure_activations(scores.provenance);
  }
  for (const Criterion& c : criteria_) {
    scores.criteria.emplace_back(
        c.name, c.kind == CriterionKind::random ? random_scores(base_.mixture(), config_.seed)
                : c.kind == CriterionKind::activations ? activations->scores(c.name)
                                                       : weight_scores(c.name, *norms));
  }
  check_scores(scores, config_.model);
  if (base_.mixture().experts > 1) leave_out_constant(scores);
  return scores;
}

}  // namespace espalier::prune
#endif
