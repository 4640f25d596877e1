// SPDX-License-Identifier: Apache-2.0
// prune: writes a checkpoint without the experts that scores or a plan say are not needed.
//   prune --model mixtral --scores scores/scores.json --criterion reap --keep 6 --output pruned
//   prune --model mixtral --plan pruning_plan.json --layout consolidated --output pruned
// Bytes are copied from file to file, so memory stays small whatever the size of the model.
#include <algorithm>
#include <chrono>

#include <espalier/hub/adapter.hpp>
#include <espalier/hub/fingerprint.hpp>
#include <espalier/prune/adapter.hpp>
#include <espalier/prune/export.hpp>

#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;
namespace fs = std::filesystem;

struct Options {
  std::string model, scores, criterion, plan, layout = "standard", max_shard_size = "5GB", output;
  std::string adapter, adapter_output;
  std::int64_t keep = 0;
  bool dry_run = false;
};

void declare(CLI::App& app, Options& o) {
  app.add_option("--model", o.model, "Checkpoint folder in Hugging Face layout")->required();
  auto* scores = app.add_option("--scores", o.scores, "scores.json, as analyze writes it");
  auto* criterion = app.add_option("--criterion", o.criterion, "Which of its scores to go by");
  auto* keep = app.add_option("--keep", o.keep,
                              "Experts to keep in every layer; of a model that chooses from groups "
                              "of experts (n_group), equally many of each group, so a multiple");
  keep->check(integer_within(1, 1 << 16))->needs(scores);
  criterion->needs(scores);
  scores->needs(criterion)->needs(keep);
  app.add_option("--plan", o.plan, "pruning_plan.json with the experts to keep")->excludes(scores);
  auto* layout =
      app.add_option("--layout", o.layout,
                     "standard: each tensor stays in the shard of the same name; consolidated: new "
                     "shards of --max-shard-size");
  layout->check(CLI::IsMember({"standard", "consolidated"}));
  app.add_option("--max-shard-size", o.max_shard_size,
                 "Largest shard of the consolidated layout: 5GB (10^9), 500MB, 4GiB, ...");
  app.add_option("--output", o.output, "Folder to write; must not exist")->required();
  app.add_flag("--dry-run", o.dry_run,
               "Check everything, say what would be written, write nothing");
  auto* adapter = app.add_option("--adapter", o.adapter, "PEFT adapter folder to prune alongside");
  auto* target = app.add_option("--adapter-output", o.adapter_output,
                                "Folder for the pruned adapter; must not exist");
  adapter->needs(target);
  target->needs(adapter);
}

/// The plan, and how messages should call it.
std::pair<prune::Plan, std::string> make_plan(const Options& o, const hub::Mixture& mixture) {
  if (!o.plan.empty()) return {prune::read_plan(o.plan), o.plan};
  const std::string text = io::read_text(o.scores);  // once: a pipe gives nothing the second time
  const prune::Scores scores = prune::parse_scores(io::parse_json(text, o.scores), o.scores);
  const prune::LayerScores& layers = scores.at(o.criterion, o.scores);
  prune::check_scores_fit(o.criterion, layers, mixture, o.scores);
  ESP_REQUIRE(o.keep <= mixture.experts, UsageError, "--keep ", o.keep, ": the model has ",
              mixture.experts, " experts per layer");
  ESP_REQUIRE(o.keep >= mixture.top_k, UsageError, "--keep ", o.keep, ": num_experts_per_tok is ",
              mixture.top_k, ", keep at least as many");
  for (std::size_t l = 0; l < layers.size() && o.keep < mixture.experts; ++l) {
    const auto [low, high] = std::minmax_element(layers[l].begin(), layers[l].end());
    ESP_REQUIRE(low == layers[l].end() || *low < *high, FormatError, o.scores, ": criterion \"",
                o.criterion, "\" is ", *low, " for every expert of layer ", l,
                ": it says nothing about which to keep");
  }
  prune::Plan plan = prune::plan_from_scores(layers, o.keep, mixture.groups);
  if (mixture.groups > 1) plan.provenance["equal_per_group"] = mixture.groups;
  plan.provenance["criterion"] = o.criterion;
  plan.provenance["keep"] = o.keep;
  plan.provenance["scores_sha256"] = io::sha256(text);
  plan.provenance["scores"] = scores.provenance;
  return {std::move(plan), o.scores};
}

/// Scores and plans say of which model they are; expert numbers of another one mean nothing here.
/// `who` the provenance says it was made for: "model" or "base".
void warn_of_another_model(const io::Json& provenance, const std::string& who,
                           const hub::Checkpoint& base, const std::string& source) {
  const auto differs = [&](const std::string& key, const auto& current) {
    const io::Json* known = provenance.is_object() ? provenance.find_value(who + key) : nullptr;
    return known != nullptr && known->is_string() && known->as_string() != current();
  };
  const char* what = nullptr;
  if (differs("_config_sha256",
              [&] { return io::sha256(io::read_text(base.folder() / "config.json")); })) {
    what = "with another config.json";
  } else if (differs("_fingerprint", [&] { return hub::fingerprint_of_weights(base); })) {
    what = "with other weights";
  }
  if (what == nullptr) return;
  print(stderr, "prune: warning: {} was made for a model {} than {}\n", source, what,
        base.folder().string());
}

std::int64_t parameters(const std::vector<io::ShardSpec>& shards) {
  std::int64_t n = 0;
  for (const io::ShardSpec& shard : shards) {
    for (const io::TensorSpec& t : shard.tensors) {
      std::int64_t product = 1;
      for (const std::int64_t extent : t.shape) product *= extent;
      n += product;
    }
  }
  return n;
}

void report(const Options& o, const CommonOptions& common, const hub::Checkpoint& base,
            const prune::Plan& plan, const prune::Export& what) {
  const hub::Mixture& mixture = base.mixture();
  const std::int64_t kept = prune::kept_count(plan);
  if (common.json) {
    io::Json j = io::Json::object();
    j["output"] = o.output;
    j["dry_run"] = o.dry_run;
    j["layout"] = o.layout;
    j["experts_before"] = mixture.experts;
    j["experts_after"] = kept;
    j["bytes_before"] = what.base_bytes;
    j["bytes_after"] = what.bytes;
    j["parameters_after"] = parameters(what.shards);
    j["dropped_tensors"] = what.dropped_tensors;
    j["left_out"] = io::Json::array(what.left_out);
    j["shards"] = io::Json::array();
    for (const io::ShardSpec& shard : what.shards) {
      io::Json s = io::Json::object();
      s["file"] = shard.file;
      s["tensors"] = shard.tensors.size();
      s["bytes"] = shard.bytes;
      j["shards"].push_back(std::move(s));
    }
    j["keep"] = io::Json::array();
    for (const auto& layer : plan.keep) j["keep"].push_back(io::Json::array(layer));
    print("{}\n", io::dump(j));
    return;
  }
  Table table({"shard", "tensors", "bytes", ""});
  for (const io::ShardSpec& shard : what.shards) {
    table.add_row({shard.file, std::to_string(shard.tensors.size()), std::to_string(shard.bytes),
                   format_bytes(static_cast<double>(shard.bytes))});
  }
  table.print();
  if (!what.left_out.empty()) {
    print(
        "\nmulti-token prediction is left out ({} tensors, such as {}): it has experts of its own, "
        "and the plan says nothing of them\n",
        what.left_out.size(), what.left_out[0]);
  }
  const double left = static_cast<double>(what.bytes) / static_cast<double>(what.base_bytes);
  const auto sparse = std::count(mixture.sparse.begin(), mixture.sparse.end(), true);
  print("\n{} layers, {} of {} experts in {}: {} of {} ({:.2f}% less), {} parameters\n",
        mixture.layers, kept, mixture.experts,
        sparse == mixture.layers ? std::string("each") : fmt::format("{} of them", sparse),
        format_bytes(static_cast<double>(what.bytes)),
        format_bytes(static_cast<double>(what.base_bytes)), 100 * (1 - left),
        parameters(what.shards));
  print("{}: {}\n", o.output, o.dry_run ? "not written (dry run)" : "written");
}

void refuse_existing(const std::string& folder) {
  ESP_REQUIRE(folder.empty() || !fs::exists(fs::symlink_status(folder)), IoError, folder,
              ": exists already; remove it or choose another output folder");
}

void run(const Options& o, const CommonOptions& common) {
  ESP_REQUIRE(!o.plan.empty() || !o.scores.empty(), UsageError,
              "give --plan, or --scores with --criterion and --keep");
  const std::size_t max_shard_bytes = io::parse_bytes(o.max_shard_size);
  refuse_existing(o.output);
  refuse_existing(o.adapter_output);
  if (!o.output.empty()) io::require_apart(o.output, o.model);
  for (const std::string& input : {o.model, o.adapter}) {
    if (!o.adapter_output.empty()) io::require_apart(o.adapter_output, input);
  }
  const hub::Checkpoint base(o.model);
  hub::require_mixture(base, "prune");
  print_warnings("prune", base.warnings());
  const auto [plan, source] = make_plan(o, base.mixture());
  if (o.plan.empty()) {
    warn_of_another_model(plan.provenance.at("scores"), "model", base, o.scores);
  } else {
    warn_of_another_model(plan.provenance, "base", base, o.plan);
  }
  const auto layout =
      o.layout == "standard" ? prune::ShardLayout::standard : prune::ShardLayout::consolidated;
  const prune::Export what = prune::plan_export(base, plan, layout, max_shard_bytes, source);
  std::optional<io::Adapter> adapter;
  if (!o.adapter.empty()) {
    adapter = io::read_adapter(o.adapter);
    hub::check_adapter_fits(*adapter, base.config(), o.adapter);
  }
  if (!o.dry_run) {
    const auto begin = std::chrono::steady_clock::now();
    Progress progress("prune", static_cast<std::int64_t>(what.bytes >> 20), "MiB");
    std::size_t done = 0;
    prune::write_export(base, plan, what, o.output, [&](std::size_t bytes) {
      done += bytes;
      progress.update(static_cast<std::int64_t>(done >> 20));
      if (interrupted()) throw Interrupted("interrupted; nothing was written");
    });
    progress.finish();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    print(stderr, "prune: {:.2f} GB/s, at most {} of memory\n",
          static_cast<double>(what.bytes) / 1e9 / seconds.count(),
          format_bytes(static_cast<double>(peak_memory_bytes())));
    if (adapter)
      prune::write_pruned_adapter(o.adapter, *adapter, base.expert_names(), plan, o.adapter_output);
  }
  report(o, common, base, plan, what);
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "prune", "Removes experts from a checkpoint, byte for byte.",
      [&](CLI::App& app) { declare(app, o); },
      [&](const CommonOptions& common) { run(o, common); });
}
