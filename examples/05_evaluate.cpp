// SPDX-License-Identifier: Apache-2.0
// Evaluates a checkpoint on one task: DATA is a folder with multiple_choice/, TASK the name of a
// file in it, such as arc:easy. Started again, it asks only what has no answer in OUTPUT yet.
//   05_evaluate MODEL DATA TASK OUTPUT
#include <fmt/format.h>

#include <espalier/eval/evaluation.hpp>

using namespace espalier;

int main(int argc, char** argv) {
  try {
    ESP_REQUIRE(argc == 5, UsageError, "expected MODEL DATA TASK OUTPUT");
    eval::Evaluation run(
        {.model = argv[1], .data = argv[2], .output = argv[4], .tasks = {argv[3]}, .resume = true});
    run.progress = [](const std::string&, std::size_t done, std::size_t total) {
      if (done == total) fmt::print("{} questions answered\n", total);
    };
    run.run_tasks();
    for (const eval::TaskResult& task : run.results()) {
      for (const eval::Metric& m : task.metrics) {
        fmt::print("{} {} {:.4f} +- {:.4f}\n", task.task, m.name, m.estimate.value,
                   m.estimate.standard_error);
      }
    }
  } catch (const Error& e) {
    fmt::print(stderr, "05_evaluate: {}\n", e.what());
    return 1;
  }
}
