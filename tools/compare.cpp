// SPDX-License-Identifier: Apache-2.0
// compare: is a model worse than another? Joins the journals of evaluations question by question.
//   compare results/base results/keep6 results/keep4
//   compare results/base results/keep6 --not-worse-by 1    exit code 3 if it may be worse by more
#include <espalier/eval/compare.hpp>

#include "cli/program.hpp"
#include "cli/progress.hpp"

namespace {

using namespace espalier;
namespace fs = std::filesystem;

constexpr int kExitWorse = 3;

struct Options {
  std::vector<std::string> results;
  double not_worse_by = -1;  // points; negative: no gate
};

std::vector<eval::Comparison> compare(const Options& o) {
  ESP_REQUIRE(o.results.size() >= 2, UsageError, "expected two result folders or more");
  std::vector<eval::Comparison> all;
  for (std::size_t i = 1; i < o.results.size(); ++i) {
    const std::string label = fs::path(o.results[i]).lexically_normal().filename().string();
    for (eval::Comparison& c : eval::compare_results(o.results[0], o.results[i], label)) {
      all.push_back(std::move(c));
    }
  }
  ESP_REQUIRE(!all.empty(), UsageError, o.results[0],
              ": no task with answers by question that another folder has too");
  eval::adjust_for_number(all);
  return all;
}

/// A difference and its interval, in points of a hundred.
std::string points(double x) {
  return fmt::format("{:+.2f}", 100 * x);
}
std::string probability(double p) {
  return p != p ? "-" : p < 1e-4 ? fmt::format("{:.0e}", p) : fmt::format("{:.4f}", p);
}

void show(const std::vector<eval::Comparison>& all, const std::string& first) {
  Table table({"model", "task", "metric", "questions", first, "other", "difference", "95 %",
               "gained", "lost", "p", "p of all", "detectable"});
  for (const eval::Comparison& c : all) {
    table.add_row({c.model, c.task, c.metric, std::to_string(c.questions),
                   fmt::format("{:.4f}", c.first), fmt::format("{:.4f}", c.other),
                   points(c.difference.value) + " +- " +
                       fmt::format("{:.2f}", 100 * c.difference.standard_error),
                   points(c.interval.low) + " to " + points(c.interval.high),
                   std::to_string(c.gained), std::to_string(c.lost), probability(c.p),
                   probability(c.p_holm), fmt::format("{:.2f}", 100 * c.detectable)});
  }
  table.print();
  print(
      "\nDifferences are in points of a hundred, with the standard error of paired questions."
      "\np: McNemar's exact test; p of all: after Holm's correction for {} comparisons."
      "\ndetectable: a true difference that so many questions find in 80 % of all cases.\n",
      all.size());
}

io::Json json_of(const eval::Comparison& c) {
  const auto number = [](double x) { return x == x ? io::Json(x) : io::Json(); };
  const std::pair<const char*, io::Json> fields[] = {
      {"model", c.model},
      {"task", c.task},
      {"metric", c.metric},
      {"questions", c.questions},
      {"first", c.first},
      {"other", c.other},
      {"difference", c.difference.value},
      {"standard_error", number(c.difference.standard_error)},
      {"interval", io::Json::array(std::vector<double>{c.interval.low, c.interval.high})},
      {"gained", c.gained},
      {"lost", c.lost},
      {"p", number(c.p)},
      {"p_holm", number(c.p_holm)},
      {"detectable", number(c.detectable)},
  };
  io::Json j = io::Json::object();
  for (const auto& [key, value] : fields) j[key] = value;
  return j;
}

int run(const Options& o, const CommonOptions& common) {
  const std::vector<eval::Comparison> all = compare(o);
  if (common.json) {
    io::Json list = io::Json::array();
    for (const eval::Comparison& c : all) list.push_back(json_of(c));
    print("{}\n", io::dump(list));
  } else {
    show(all, fs::path(o.results[0]).lexically_normal().filename().string());
  }
  if (o.not_worse_by < 0) return 0;
  int code = 0;
  for (const eval::Comparison& c : all) {
    if (100 * c.interval.low >= -o.not_worse_by) continue;
    print(stderr, "compare: {}: {} {} may be worse by {:.2f} points, more than {}\n", c.model,
          c.task, c.metric, -100 * c.interval.low, o.not_worse_by);
    code = kExitWorse;
  }
  return code;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return run_program(
      argc, argv, "compare", "Compares models question by question.",
      [&](CLI::App& app) {
        app.add_option("results", o.results,
                       "Folders that evaluate wrote; the others are compared with the first")
            ->required();
        app.add_option("--not-worse-by", o.not_worse_by,
                       "Exit with 3 if a model may be worse by more points: if the low end of the "
                       "95 % interval is below")
            ->check(real_within(0, 100));
      },
      [&](const CommonOptions& common) { return run(o, common); });
}
