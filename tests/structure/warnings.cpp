// SPDX-License-Identifier: Apache-2.0
// Code of a user that g++ 12 warned about, through no fault of either: see warnings.cmake.
#include <espalier/prune/scores.hpp>

std::string tables(const char* text) {
  const auto scores =
      espalier::prune::parse_scores(espalier::io::parse_json(text, "scores"), "scores");
  return espalier::prune::scores_json(scores) + espalier::prune::scores_csv(scores);
}
