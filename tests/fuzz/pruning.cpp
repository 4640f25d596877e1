// SPDX-License-Identifier: Apache-2.0
// Pruning plans, scores, and an integer of config.json changed in place.
#include <espalier/prune/config_edit.hpp>
#include <espalier/prune/plan.hpp>
#include <espalier/prune/scores.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  fuzz::accepts([&] {
    const io::Json json = io::parse_json(text, "a.json");
    fuzz::accepts([&] { (void)prune::parse_plan(json, "plan.json"); });
    fuzz::accepts([&] {
      const prune::Scores scores = prune::parse_scores(json, "scores.json");
      (void)prune::scores_csv(scores);
      (void)prune::parse_scores(io::parse_json(prune::scores_json(scores), "b"), "b");
    });
    fuzz::accepts([&] {
      const std::string edited =
          prune::with_integer(std::string(text), "num_local_experts", 3, "config.json");
      fuzz::require(io::parse_json(edited, "edited").at("num_local_experts").as_int() == 3);
    });
  });
}
