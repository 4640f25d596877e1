// SPDX-License-Identifier: Apache-2.0
// verify: proof that a pruned checkpoint is right.
//   verify --base mixtral --pruned pruned
//   verify --base mixtral --pruned pruned --other pruned-consolidated --text sample.txt
// With --text also by what it computes: its logits are those of the base whose router gives the
// dropped experts minus infinity.
#include <algorithm>

#include <espalier/hub/load_model.hpp>
#include <espalier/prune/calibrate.hpp>
#include <espalier/prune/verify.hpp>

#include "cli/print.hpp"
#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;
namespace fs = std::filesystem;

struct Options {
  std::string base, pruned, plan, other, text;
  std::int64_t max_tokens = 512;
};

struct Check {
  std::string what, result;
  std::vector<std::string> problems;
};

struct LogitDifference {
  std::int64_t tokens = 0;
  double largest = 0, largest_logit = 0;
};

/// JSONL as for analyze, or else one text.
data::CalibrationSet read_sequences(const Options& o, const hub::Checkpoint& base) {
  const auto words = text::ChatTokenizer::load(base.folder());
  if (fs::path(o.text).extension() == ".jsonl") {
    return data::read_calibration(o.text, data::record_encoder(words, base.config()), o.max_tokens);
  }
  std::vector<std::int32_t> ids = words.tokenizer().encode(io::read_text(o.text));
  if (std::cmp_greater(ids.size(), o.max_tokens))
    ids.resize(static_cast<std::size_t>(o.max_tokens));
  ESP_REQUIRE(!ids.empty(), FormatError, o.text, ": has no text");
  return {{ids}, static_cast<std::int64_t>(ids.size())};
}

LogitDifference compare_logits(const Options& o, const hub::Checkpoint& base,
                               const hub::Checkpoint& pruned, const prune::Plan& plan) {
  const data::CalibrationSet set = read_sequences(o, base);
  auto masked = hub::load_model(base);
  auto keep = plan.keep;  // of the layers that compute; prediction follows them, if it is there
  keep.resize(static_cast<std::size_t>(base.mixture().layers));
  masked.mask_experts(keep);
  const auto small = hub::load_model(pruned);
  LogitDifference d;
  Progress progress("logits", set.tokens, "tokens");
  const NoGrad no_grad;
  for (const auto& sequence : set.sequences) {
    const auto want = masked.logits(masked.hidden(PackedTokens(sequence)).value());
    const auto got = small.logits(small.hidden(PackedTokens(sequence)).value());
    for (std::int64_t i = 0; i < want.numel(); ++i) {
      const double difference = std::abs(static_cast<double>(got[i]) - want[i]);
      if (!(difference <= d.largest)) d.largest = difference;  // NaN gets through
      d.largest_logit = std::max(d.largest_logit, static_cast<double>(std::abs(want[i])));
    }
    progress.update(d.tokens += static_cast<std::int64_t>(sequence.size()));
    if (interrupted()) throw Interrupted("interrupted");
  }
  return d;
}

Check tensors_check(const Options& o, const hub::Checkpoint& base, const hub::Checkpoint& pruned,
                    const prune::Plan& plan, const std::string& source) {
  Progress progress("tensors", static_cast<std::int64_t>(base.names().size()), "tensors");
  const prune::Verification v =
      prune::verify_export(base, pruned, plan, source, [&](std::size_t done) {
        progress.update(static_cast<std::int64_t>(done));
        if (interrupted()) throw Interrupted("interrupted");
      });
  return {o.pruned + " against " + o.base,
          fmt::format("{} tensors ({}) equal their sources, {} dropped, {}{} other files equal",
                      v.tensors, format_bytes(static_cast<double>(v.bytes)), v.dropped_tensors,
                      v.left_out > 0
                          ? fmt::format("{} of multi-token prediction left out, ", v.left_out)
                          : std::string(),
                      v.files),
          v.problems};
}

Check other_check(const Options& o, const hub::Checkpoint& pruned) {
  const hub::Checkpoint other(o.other);
  Progress progress("tensors", static_cast<std::int64_t>(pruned.names().size()), "tensors");
  const prune::Verification v = prune::verify_same(pruned, other, [&](std::size_t done) {
    progress.update(static_cast<std::int64_t>(done));
    if (interrupted()) throw Interrupted("interrupted");
  });
  return {
      o.other + " against " + o.pruned,
      fmt::format("{} tensors ({}) equal", v.tensors, format_bytes(static_cast<double>(v.bytes))),
      v.problems};
}

Check logits_check(const Options& o, const hub::Checkpoint& base, const hub::Checkpoint& pruned,
                   const prune::Plan& plan) {
  const LogitDifference d = compare_logits(o, base, pruned, plan);
  Check check{"logits against the masked base",
              fmt::format("largest difference {:g} over {} tokens", d.largest, d.tokens),
              {}};
  // Rows of an expert are the same rows in the same order, so rounding is the same too; the margin
  // is for matrix products that might be split differently for another number of experts.
  if (!(d.largest <= 1e-5 * std::max(d.largest_logit, 1.0))) {
    check.problems.push_back(
        fmt::format("largest difference {:g}, largest logit {:g}", d.largest, d.largest_logit));
  }
  return check;
}

int report(const std::vector<Check>& checks, const CommonOptions& common) {
  std::size_t problems = 0;
  io::Json j = io::Json::object();
  j["checks"] = io::Json::array();
  for (const Check& check : checks) {
    problems += check.problems.size();
    io::Json c = io::Json::object();
    c["what"] = check.what;
    c["ok"] = check.problems.empty();
    c["result"] = check.result;
    c["problems"] = io::Json::array(check.problems);
    j["checks"].push_back(std::move(c));
  }
  j["ok"] = problems == 0;
  if (common.json) {
    print("{}\n", io::dump(j));
  } else {
    for (const Check& check : checks) {
      if (check.problems.empty()) print("ok      {}: {}\n", check.what, check.result);
      for (const std::string& p : check.problems) print("WRONG   {}: {}\n", check.what, p);
    }
  }
  if (problems == 0) return 0;
  throw FormatError(fmt::format("{} problem{} found, the first in {}", problems,
                                problems == 1 ? "" : "s",
                                std::find_if(checks.begin(), checks.end(), [](const Check& c) {
                                  return !c.problems.empty();
                                })->what));
}

int run(const Options& o, const CommonOptions& common) {
  const hub::Checkpoint base(o.base), pruned(o.pruned);
  print_warnings("verify", base.warnings());
  const std::string source =
      o.plan.empty() ? (fs::path(o.pruned) / prune::kPlanFile).string() : o.plan;
  const prune::Plan plan = prune::read_plan(source);
  std::vector<Check> checks = {tensors_check(o, base, pruned, plan, source)};
  if (!o.other.empty()) checks.push_back(other_check(o, pruned));
  if (!o.text.empty() && checks[0].problems.empty()) {
    checks.push_back(logits_check(o, base, pruned, plan));
  }
  return report(checks, common);
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "verify", "Proves that a pruned checkpoint is what a plan makes of its base.",
      [&](CLI::App& app) {
        app.add_option("--base", o.base, "Checkpoint folder before pruning")->required();
        app.add_option("--pruned", o.pruned, "Checkpoint folder after pruning")->required();
        app.add_option("--plan", o.plan, "Plan to check against, instead of the one in --pruned");
        app.add_option("--other", o.other, "The same pruned model in another layout");
        app.add_option("--text", o.text,
                       "Text, or .jsonl with lines {\"text\": ...}: compare logits with those of "
                       "the base with the dropped experts masked");
        app.add_option("--max-tokens", o.max_tokens, "Of --text")
            ->check(integer_within(1, kMostSteps));
      },
      [&](const CommonOptions& common) { return run(o, common); });
}
