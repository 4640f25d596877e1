// SPDX-License-Identifier: Apache-2.0
// analyze: scores the experts of a checkpoint by one or more criteria, for prune to go by.
//   analyze --model mixtral --calibration texts.jsonl --output scores
//   analyze --model mixtral --adapter run --criteria router_delta,expert_delta --output scores
// Writes scores.json, scores.csv, and one heatmap per criterion as PNG and SVG. Criteria without
// data say little on their own; frequency, ean, reap and man come from one pass over the texts.
#include <algorithm>

#include <espalier/hub/load_model.hpp>
#include <espalier/io/sha256.hpp>
#include <espalier/ops/trace_session.hpp>
#include <espalier/plot/heatmap.hpp>
#include <espalier/prune/calibrate.hpp>
#include <espalier/prune/criteria.hpp>
#include <espalier/prune/plan.hpp>

#include "cli/compute.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;
namespace fs = std::filesystem;
using prune::CriterionKind;

struct Options {
  std::string model, tuned, adapter, calibration, output, dtype = "f32";
  std::vector<std::string> criteria;
  std::int64_t max_tokens = 0, mark_keep = 0;
};

void declare(CLI::App& app, Options& o) {
  const auto count = CLI::Range(std::int64_t{0}, std::int64_t{1} << 40);
  app.add_option("--model", o.model, "Checkpoint folder in Hugging Face layout")->required();
  auto* tuned = app.add_option("--tuned", o.tuned,
                               "The same model after fine-tuning: norms, "
                               "activations and changes are of this one");
  app.add_option("--adapter", o.adapter, "Instead of --tuned, a PEFT adapter folder")
      ->excludes(tuned);
  app.add_option("--calibration", o.calibration,
                 "JSONL, lines {\"text\": ...}, or prompt and response, or messages: each its own "
                 "sequence");
  app.add_option("--max-tokens", o.max_tokens, "Calibration tokens in all; 0: the whole file")
      ->check(count);
  std::string known;
  for (const prune::Criterion& c : prune::kCriteria) {
    known += fmt::format("\n  {:<22}{}", c.name, c.meaning);
  }
  app.add_option("--criteria", o.criteria,
                 "Comma list; all that the inputs allow by default:" + known)
      ->delimiter(',');
  app.add_option("--output", o.output, "Folder for scores and heatmaps")->required();
  app.add_option("--mark-keep", o.mark_keep,
                 "Strike out in the heatmaps what --keep of prune would drop; 0: nothing")
      ->check(count);
  app.add_option("--dtype", o.dtype, "Compute type")->check(CLI::IsMember({"f32", "bf16"}));
}

bool possible(CriterionKind kind, const Options& o) {
  if (kind == CriterionKind::tuning) return !o.tuned.empty() || !o.adapter.empty();
  if (kind == CriterionKind::activations) return !o.calibration.empty();
  return true;
}

/// Those asked for, or all that are possible. @throws UsageError saying which input is missing
std::vector<prune::Criterion> choose_criteria(const Options& o) {
  std::vector<prune::Criterion> chosen;
  if (o.criteria.empty()) {
    for (const prune::Criterion& c : prune::kCriteria) {
      if (possible(c.kind, o)) chosen.push_back(c);
    }
    return chosen;
  }
  for (const std::string& name : o.criteria) {
    const prune::Criterion* c = prune::find_criterion(name);
    ESP_REQUIRE(c != nullptr, UsageError, "--criteria: unknown criterion \"", name, "\"");
    ESP_REQUIRE(possible(c->kind, o), UsageError, "--criteria: \"", name, "\" needs ",
                c->kind == CriterionKind::tuning ? "--tuned or --adapter" : "--calibration");
    for (const prune::Criterion& other : chosen) {
      ESP_REQUIRE(name != other.name, UsageError, "--criteria: \"", name, "\" stands twice");
    }
    chosen.push_back(*c);
  }
  return chosen;
}

bool of_experts(const prune::Criterion& c) {
  return std::string_view(c.name).starts_with("expert");
}

/// Of the default list, leaves out what this checkpoint does not allow, and says so.
void leave_out_impossible(const hub::Checkpoint& base, std::vector<prune::Criterion>& criteria) {
  std::string why;
  const auto leave_out = [&](const auto& impossible) {
    std::string names;
    std::erase_if(criteria, [&](const prune::Criterion& c) {
      if (!impossible(c)) return false;
      names += std::string(names.empty() ? "" : ", ") + c.name;
      return true;
    });
    if (!names.empty()) fmt::print(stderr, "analyze: left out {}: {}\n", names, why);
  };
  const auto& sparse = base.mixture().sparse;
  const auto layer = std::find(sparse.begin(), sparse.end(), true) - sparse.begin();
  try {
    (void)prune::expert_matrices(base, static_cast<int>(layer), 0);
  } catch (const UnsupportedError& e) {
    why = e.what();
    leave_out(of_experts);
  }
  why = base.why_not_computable();
  if (base.computable()) return;
  leave_out([](const prune::Criterion& c) { return c.kind == CriterionKind::activations; });
}

/// A criterion that is the same for all experts chooses nothing: an adapter that touches none of
/// them, for one. Left out of the default list, refused where it is asked for.
void refuse_constant(const Options& o, prune::Scores& scores,
                     std::vector<prune::Criterion>& criteria) {
  for (std::size_t i = 0; i < criteria.size();) {
    const auto& [name, layers] = scores.criteria[i];
    const bool constant = std::all_of(layers.begin(), layers.end(), [](const auto& layer) {
      return std::all_of(layer.begin(), layer.end(), [&](double v) { return v == layer[0]; });
    });
    if (!constant) {
      ++i;
      continue;
    }
    const std::string what =
        "criterion " + name + " is the same for all experts of each layer, it cannot choose" +
        (criteria[i].kind == CriterionKind::tuning ? ": fine-tuning did not touch what it looks at"
                                                   : "");
    ESP_REQUIRE(o.criteria.empty(), UsageError, what);
    fmt::print(stderr, "analyze: left out: {}\n", what);
    scores.criteria.erase(scores.criteria.begin() + static_cast<std::ptrdiff_t>(i));
    criteria.erase(criteria.begin() + static_cast<std::ptrdiff_t>(i));
  }
}

bool any_of_kind(const std::vector<prune::Criterion>& criteria, CriterionKind kind) {
  return std::any_of(criteria.begin(), criteria.end(),
                     [&](const prune::Criterion& c) { return c.kind == kind; });
}

prune::WeightNorms measure_weights(const Options& o, const prune::ModelPair& models,
                                   const std::vector<prune::Criterion>& criteria) {
  prune::WeightNormOptions options{false, false, true, {}};
  for (const prune::Criterion& c : criteria) {
    if (c.kind != CriterionKind::tuning && c.kind != CriterionKind::weights) continue;
    const std::string_view name = c.name;
    options.router |= name.starts_with("router");
    options.experts |= name.starts_with("expert");
    options.expert_delta_only &= !name.starts_with("expert") || name == "expert_delta";
  }
  const hub::Mixture& mixture = models.base.mixture();
  std::int64_t matrices = 0;
  for (std::size_t l = 0; l < mixture.sparse.size(); ++l) {
    if (!mixture.has(l)) continue;
    if (options.router) ++matrices;
    if (!options.experts) continue;
    const auto per_expert = prune::expert_matrices(models.base, static_cast<int>(l), 0).size();
    matrices += mixture.experts * static_cast<std::int64_t>(per_expert);
  }
  Progress progress("weights of " + (o.tuned.empty() ? o.model : o.tuned), matrices, "matrices");
  options.progress = [&](std::int64_t done) {
    progress.update(done);
    if (interrupted()) throw Interrupted("interrupted; nothing was written");
  };
  return prune::weight_norms(models, options);
}

prune::ActivationScores measure_activations(const Options& o, const std::string& device,
                                            const hub::Checkpoint& base,
                                            const hub::Checkpoint* tuned, io::Json& provenance) {
  const hub::Checkpoint& checkpoint = tuned != nullptr ? *tuned : base;
  const auto words = text::ChatTokenizer::load(checkpoint.folder());
  const data::CalibrationSet set = data::read_calibration(
      o.calibration, data::record_encoder(words, checkpoint.config()), o.max_tokens);
  provenance["calibration_sha256"] = io::sha256(io::read_text(o.calibration));
  provenance["calibration_sequences"] = set.sequences.size();
  provenance["calibration_tokens"] = set.tokens;
  Progress progress("calibration", set.tokens, "tokens");
  provenance["dtype"] = o.dtype;
  const auto step = [&](std::int64_t done) {
    progress.update(done);
    if (interrupted()) throw Interrupted("interrupted; nothing was written");
  };
  return visit_compute(device, o.dtype, [&]<class T, class D>() {
    return prune::calibrate(hub::load_model<T, D>(checkpoint, o.adapter), set, step);
  });
}

void draw_heatmaps(const Options& o, const std::vector<prune::Criterion>& criteria,
                   const prune::Scores& scores, std::int64_t groups) {
  for (std::size_t i = 0; i < criteria.size(); ++i) {
    const auto& [name, layers] = scores.criteria[i];
    plot::Heatmap map;
    map.title = name;
    map.value_label = criteria[i].meaning;
    map.values = layers;
    const auto widest = std::max_element(layers.begin(), layers.end(), [](auto& a, auto& b) {
                          return a.size() < b.size();
                        })->size();
    for (auto& row : map.values) row.resize(widest, std::nan(""));  // grey: no mixture there
    if (o.mark_keep > 0) {
      const prune::Plan plan = prune::plan_from_scores(layers, o.mark_keep, groups);
      for (std::size_t l = 0; l < layers.size(); ++l) {
        map.dropped.emplace_back();
        for (std::size_t e = 0; e < layers[l].size(); ++e) {
          map.dropped.back().push_back(!plan.keeps(l, static_cast<int>(e)));
        }
        map.dropped.back().resize(widest, false);
      }
    }
    for (const char* extension : {".png", ".svg"}) {
      plot::save(map, fs::path(o.output) / (name + extension));
    }
  }
}

void report(const Options& o, const CommonOptions& common, const prune::Scores& scores) {
  if (common.json) {
    io::Json j = io::Json::object();
    j["output"] = o.output;
    j["criteria"] = io::Json::object();
    for (const auto& [name, layers] : scores.criteria) {
      io::Json rows = io::Json::array();
      for (const auto& layer : layers) rows.push_back(io::Json::array(layer));
      j["criteria"][name] = std::move(rows);
    }
    j["provenance"] = scores.provenance;
    fmt::print("{}\n", io::dump(j));
    return;
  }
  Table table({"criterion", "lowest", "layer", "expert", "highest", "layer", "expert"});
  for (const auto& [name, layers] : scores.criteria) {
    struct Place {
      double score;
      std::size_t layer, expert;
    };
    std::optional<Place> low, high;
    for (std::size_t l = 0; l < layers.size(); ++l) {
      for (std::size_t e = 0; e < layers[l].size(); ++e) {
        if (!low || layers[l][e] < low->score) low = Place{layers[l][e], l, e};
        if (!high || layers[l][e] > high->score) high = Place{layers[l][e], l, e};
      }
    }
    table.add_row({name, fmt::format("{:.6g}", low->score), std::to_string(low->layer),
                   std::to_string(low->expert), fmt::format("{:.6g}", high->score),
                   std::to_string(high->layer), std::to_string(high->expert)});
  }
  table.print();
  fmt::print("\n{}: scores.json, scores.csv and heatmaps\n", o.output);
}

void run(const Options& o, const CommonOptions& common) {
  std::vector<prune::Criterion> criteria = choose_criteria(o);
  ESP_REQUIRE(!fs::exists(fs::path(o.output) / "scores.json"), IoError, o.output,
              ": has a scores.json already; remove it or choose another output folder");
  const hub::Checkpoint base(o.model);
  hub::require_mixture(base, "score");
  for (const std::string& w : base.warnings()) fmt::print(stderr, "analyze: warning: {}\n", w);
  if (o.criteria.empty()) leave_out_impossible(base, criteria);
  if (any_of_kind(criteria, CriterionKind::activations)) (void)base.config();
  const hub::Mixture& mixture = base.mixture();
  ESP_REQUIRE(o.mark_keep <= mixture.experts, UsageError, "--mark-keep ", o.mark_keep,
              ": the model has ", mixture.experts, " experts per layer");
  ESP_REQUIRE(o.mark_keep % mixture.groups == 0, UsageError, "--mark-keep ", o.mark_keep,
              ": the router chooses from ", mixture.groups, " equal groups, mark a multiple");
  std::optional<hub::Checkpoint> tuned;
  if (!o.tuned.empty()) prune::check_same_model(base, tuned.emplace(o.tuned));
  std::optional<io::Adapter> adapter;
  if (!o.adapter.empty()) {
    adapter = io::read_adapter(o.adapter);
    hub::check_adapter_fits(*adapter, base.config(), o.adapter);
  }

  prune::Scores scores;
  scores.provenance["model_config_sha256"] =
      io::sha256(io::read_text(base.folder() / "config.json"));
  if (tuned) scores.provenance["tuned"] = o.tuned;
  if (adapter) scores.provenance["adapter"] = o.adapter;
  scores.provenance["seed"] = common.seed;
  std::optional<prune::WeightNorms> norms;
  if (any_of_kind(criteria, CriterionKind::tuning) ||
      any_of_kind(criteria, CriterionKind::weights)) {
    norms = measure_weights(o, {base, tuned ? &*tuned : nullptr, adapter ? &*adapter : nullptr},
                            criteria);
  }
  std::optional<prune::ActivationScores> activations;
  if (any_of_kind(criteria, CriterionKind::activations)) {
    activations =
        measure_activations(o, common.device, base, tuned ? &*tuned : nullptr, scores.provenance);
  }
  for (const prune::Criterion& c : criteria) {
    prune::LayerScores layers =
        c.kind == CriterionKind::random        ? prune::random_scores(mixture, common.seed)
        : c.kind == CriterionKind::activations ? activations->scores(c.name)
                                               : prune::weight_scores(c.name, *norms);
    scores.criteria.emplace_back(c.name, std::move(layers));
  }
  prune::check_scores(scores, o.model);
  if (mixture.experts > 1) refuse_constant(o, scores, criteria);
  std::error_code error;
  fs::create_directories(o.output, error);
  ESP_REQUIRE(!error, IoError, o.output, ": cannot create: ", error.message());
  draw_heatmaps(o, criteria, scores, mixture.groups);
  prune::write_scores(o.output, scores);
  report(o, common, scores);
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "analyze", "Scores the experts of a checkpoint, to choose what to prune.",
      [&](CLI::App& app) { declare(app, o); },
      [&](const CommonOptions& common) {
        const TraceSession trace;  // where ESPALIER_TRACE names a file
        run(o, common);
      });
}
