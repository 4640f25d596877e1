// SPDX-License-Identifier: Apache-2.0
// Scoring experts through the library, on the tiny Mixtral of tests/golden: which criteria are
// chosen, what is left out and why, and the scores themselves.
#include <espalier/prune/analysis.hpp>
#include <espalier/prune/score_heatmaps.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace espalier::prune {
namespace {

using test::message_of;

const std::string kModel = ESPALIER_TESTS_DIR "/golden/tiny_mixtral/model";
const std::string kAdapter = ESPALIER_TESTS_DIR "/golden/tiny_mixtral/adapter";

std::vector<std::string> names_of(const Scores& scores) {
  std::vector<std::string> names;
  for (const auto& [name, layers] : scores.criteria) names.push_back(name);
  return names;
}

TEST_CASE("An analysis takes the criteria that its inputs allow", "[prune]") {
  const test::TemporaryFolder folder;
  test::write_bytes(folder / "text.jsonl", "{\"text\": \"a tree is pruned\"}\n");
  Analysis weights({.model = kModel, .seed = 3});
  CHECK(names_of(weights.run()) ==
        std::vector<std::string>{"expert_norm", "router_norm", "random"});
  CHECK(weights.notes().empty());

  Analysis all({.model = kModel,
                .adapter = kAdapter,
                .calibration = (folder / "text.jsonl").string(),
                .max_tokens = 5});
  std::map<std::string, std::int64_t> done;
  all.progress = [&](const AnalysisProgress& p) {
    CHECK(p.done == (done.count(p.work) == 0 ? 0 : done[p.work] + (p.unit == "tokens" ? 5 : 1)));
    done[p.work] = p.done;
  };
  const Scores scores = all.run();
  CHECK(scores.criteria.size() == std::size(kCriteria));
  CHECK(done.at("weights of " + kModel) == 2 * (1 + 8 * 3));  // layers, router and experts
  CHECK(done.at("calibration") == 5);
  CHECK(scores.provenance.at("calibration_tokens").as_int() == 5);
  CHECK(scores.provenance.at("adapter").as_string() == kAdapter);
  double routed = 0;
  for (const double tokens : scores.at("frequency", "test")[1]) routed += tokens;
  CHECK(routed == 5 * 2);
}

TEST_CASE("An analysis refuses criteria that it cannot compute or that choose nothing", "[prune]") {
  const auto refusal = [](std::vector<std::string> criteria, const std::string& tuned = {}) {
    return message_of<UsageError>([&] {
      (void)Analysis({.model = kModel, .tuned = tuned, .criteria = std::move(criteria)}).run();
    });
  };
  CHECK(refusal({"foo"}) == "unknown criterion \"foo\"");
  CHECK(refusal({"reap"}) == "criterion \"reap\" needs calibration texts");
  CHECK(refusal({"router_delta"}) ==
        "criterion \"router_delta\" needs a fine-tuned checkpoint or an adapter");
  CHECK(refusal({"random", "random"}) == "criterion \"random\" stands twice");
  CHECK_THAT(refusal({"expert_delta"}, kModel),
             Catch::StartsWith("criterion expert_delta is the same for all experts"));
  Analysis unchanged({.model = kModel, .tuned = kModel});
  CHECK(names_of(unchanged.run()) ==
        std::vector<std::string>{"expert_norm", "router_norm", "random"});
  CHECK(unchanged.notes().size() == 4);
}

TEST_CASE("A program can end an analysis through its progress", "[prune]") {
  struct Stop : std::runtime_error {
    using std::runtime_error::runtime_error;
  };
  Analysis analysis({.model = kModel});
  analysis.progress = [](const AnalysisProgress&) { throw Stop("enough"); };
  CHECK_THROWS_AS(analysis.run(), Stop);
}

TEST_CASE("A heatmap has a row per layer, grey where there is no mixture", "[prune]") {
  const plot::Heatmap map = score_heatmap("reap", {{}, {3, 1, 2, 4}}, 2, 2);
  CHECK(map.value_label == "mean of gate times output norm");
  REQUIRE(map.values.size() == 2);
  CHECK(std::isnan(map.values[0][3]));
  CHECK(map.dropped[0] == std::vector<bool>(4, false));
  // The best of each group stays.
  CHECK(map.dropped[1] == std::vector<bool>{false, true, true, false});
  CHECK(score_heatmap("mine", {{1, 2}}).value_label.empty());
}

}  // namespace
}  // namespace espalier::prune
