// SPDX-License-Identifier: Apache-2.0
// analyze: scores the experts of a checkpoint by one or more criteria, for prune to go by.
//   analyze --model mixtral --calibration texts.jsonl --output scores
//   analyze --model mixtral --adapter run --criteria router_delta,expert_delta --output scores
// Writes scores.json, scores.csv, and one heatmap per criterion as PNG and SVG. Criteria without
// data say little on their own; frequency, ean, reap and man come from one pass over the texts.
#include <espalier/io/atomic_folder.hpp>
#include <espalier/ops/trace_session.hpp>
#include <espalier/prune/analysis.hpp>
#include <espalier/prune/score_heatmaps.hpp>

#include "cli/compute.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;
namespace fs = std::filesystem;

struct Options {
  prune::AnalysisConfig run;
  std::string output;
  std::int64_t mark_keep = 0;
};

void declare(CLI::App& app, Options& o) {
  const auto count = integer_within(0, kMostSteps);
  app.add_option("--model", o.run.model, "Checkpoint folder in Hugging Face layout")->required();
  auto* tuned = app.add_option("--tuned", o.run.tuned,
                               "The same model after fine-tuning: norms, "
                               "activations and changes are of this one");
  app.add_option("--adapter", o.run.adapter, "Instead of --tuned, a PEFT adapter folder")
      ->excludes(tuned);
  app.add_option("--calibration", o.run.calibration,
                 "JSONL, lines {\"text\": ...}, or prompt and response, or messages: each its own "
                 "sequence");
  app.add_option("--max-tokens", o.run.max_tokens, "Calibration tokens in all; 0: the whole file")
      ->check(count);
  std::string known;
  for (const prune::Criterion& c : prune::kCriteria) {
    known += fmt::format("\n  {:<22}{}", c.name, c.meaning);
  }
  app.add_option("--criteria", o.run.criteria,
                 "Comma list; all that the inputs allow by default:" + known)
      ->delimiter(',');
  app.add_option("--output", o.output, "Folder for scores and heatmaps")->required();
  app.add_option("--mark-keep", o.mark_keep,
                 "Strike out in the heatmaps what --keep of prune would drop; 0: nothing")
      ->check(count);
  app.add_option("--dtype", o.run.dtype, "Compute type")->check(CLI::IsMember({"f32", "bf16"}));
}

void check_mark(std::int64_t keep, const hub::Mixture& mixture) {
  ESP_REQUIRE(keep <= mixture.experts, UsageError, "--mark-keep ", keep, ": the model has ",
              mixture.experts, " experts per layer");
  ESP_REQUIRE(keep % mixture.groups == 0, UsageError, "--mark-keep ", keep,
              ": the router chooses from ", mixture.groups, " equal groups, mark a multiple");
}

prune::Scores measure(prune::Analysis& analysis) {
  std::optional<Progress> bar;
  analysis.progress = [&](const prune::AnalysisProgress& p) {
    if (p.done == 0) bar.emplace(p.work, p.total, p.unit);
    bar->update(p.done);
    if (p.done == p.total) bar->finish();
    if (interrupted()) throw Interrupted("interrupted; nothing was written");
  };
  return analysis.run();
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
    print("{}\n", io::dump(j));
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
  print("\n{}: scores.json, scores.csv and heatmaps\n", o.output);
}

void run(Options o, const CommonOptions& common) {
  o.run.seed = common.seed;
  visit_compute(common.device, o.run.dtype,
                [&]<class T, class D>() { o.run.calibrate = prune::calibrate_checkpoint<T, D>; });
  for (const std::string& input : {o.run.model, o.run.tuned, o.run.adapter}) {
    if (!input.empty()) io::require_apart(o.output, input);
  }
  prune::Analysis analysis(o.run);
  const io::OutputLock lock = io::open_output(o.output);
  ESP_REQUIRE(!fs::exists(fs::path(o.output) / "scores.json"), IoError, o.output,
              ": has a scores.json already; remove it or choose another output folder");
  print_warnings("analyze", analysis.base().warnings());
  const hub::Mixture& mixture = analysis.base().mixture();
  check_mark(o.mark_keep, mixture);
  const std::size_t known = analysis.notes().size();
  const auto tell = [&](std::size_t begin) {
    for (std::size_t i = begin; i < analysis.notes().size(); ++i) {
      print(stderr, "analyze: {}\n", analysis.notes()[i]);
    }
  };
  tell(0);
  const prune::Scores scores = measure(analysis);
  tell(known);
  print_warnings("analyze", prune::write_heatmaps(o.output, scores, o.mark_keep, mixture.groups));
  prune::write_scores(o.output, scores);  // scores.json last: it says that the others are there
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
