// SPDX-License-Identifier: Apache-2.0
// What an evaluation found, as tables on stdout.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include <espalier/eval/task.hpp>

#include "cli/print.hpp"
#include "cli/progress.hpp"

namespace espalier {

inline void print_mmlu_pro(const io::Json& s) {
  const auto percent = [](double part, double of) {
    return of > 0 ? fmt::format("{:.4f}", part / of) : std::string("-");
  };
  Table categories({"category", "questions", "correct", "accuracy"});
  for (const io::Json::Member& c : s.at("categories").members()) {
    const double records = c.value.at("records").as_double();
    const double correct = c.value.at("correct").as_double();
    categories.add_row(
        {c.key, fmt::format("{}", records), fmt::format("{}", correct), percent(correct, records)});
  }
  const double records = s.at("records").as_double();
  categories.add_row({"all (micro)", fmt::format("{}", records),
                      fmt::format("{}", s.at("correct").as_double()),
                      percent(s.at("correct").as_double(), records)});
  categories.print();
  Table parts({"how the answer was found", "questions", "correct", "accuracy"});
  const auto add = [&](const std::string& name, double count, double correct) {
    parts.add_row(
        {name, fmt::format("{}", count), fmt::format("{}", correct), percent(correct, count)});
  };
  for (const io::Json::Member& level : s.at("levels").members()) {
    add("level " + level.key, level.value.as_double(),
        s.at("level_correct").at(level.key).as_double());
  }
  const double unanswered = s.at("unanswered").as_double(), lucky = s.at("lucky").as_double();
  add("not at all: a guess", unanswered, lucky);
  if (const io::Json* cut = s.find("hit_limit")) {
    add("cut off by the limit", cut->as_double(), s.at("hit_limit_correct").as_double());
  }
  print("\n");
  parts.print();
  const io::Json& error = s.at("accuracy_stderr");
  print("\nrule {}: accuracy {:.4f} +- {:.4f} (micro), {:.4f} (macro), {:.4f} without guesses\n",
        s.at("rule").as_string(), s.at("accuracy").as_double(),
        error.is_null() ? std::nan("") : error.as_double(), s.at("macro").as_double(),
        s.at("strict_accuracy").as_double());
}

/// Tasks, and their groups and parts below them.
inline void print_results(const std::vector<eval::TaskResult>& results) {
  Table table({"task", "shots", "questions", "metric", "value", "stderr"});
  const auto add = [&](const std::string& name, int shots, std::size_t documents,
                       const std::vector<eval::Metric>& metrics) {
    for (const eval::Metric& m : metrics) {
      table.add_row({name, std::to_string(shots), std::to_string(documents), m.name,
                     fmt::format("{:.4f}", m.estimate.value),
                     fmt::format("{:.4f}", m.estimate.standard_error)});
    }
  };
  for (const eval::TaskResult& r : results) {
    if (!r.summary.is_null()) continue;  // a table of its own
    add(r.task, r.shots, r.documents, r.metrics);
    for (const eval::PartResult& g : r.groups) add("  " + g.name, r.shots, g.documents, g.metrics);
    for (const eval::PartResult& p : r.parts) add("    " + p.name, r.shots, p.documents, p.metrics);
  }
  table.print();
}

}  // namespace espalier
