// SPDX-License-Identifier: Apache-2.0
// What Evaluation runs, and what it finds.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/task.hpp is host-only; include it from a .cpp"
#endif

#include <string>
#include <vector>

#include <espalier/eval/session.hpp>
#include <espalier/eval/statistics.hpp>
#include <espalier/eval/task_definition.hpp>

namespace espalier::eval {

/// One metric of a task's results.
struct Metric {
  std::string name;
  Estimate estimate;
};

/// Results of some of a task's questions: of one subject, or of a group of subjects.
struct PartResult {
  std::string name;
  std::size_t documents = 0;
  std::vector<Metric> metrics;
};

struct TaskResult {
  std::string task;
  int shots = 0;
  std::size_t documents = 0, original_documents = 0;
  std::vector<Metric> metrics;
  std::string prompts = {};          // fingerprint of everything that was asked
  std::size_t truncated = 0;         // questions that were cut to what the model takes
  std::string id = {};               // of the definition, NAME@VERSION
  TaskSource source = {};            // of the rows
  std::string prompt_form = "none";  // the chat template, and what else shapes prompts
  std::vector<PartResult> parts = {}, groups = {};
  /// Tokens of all prompts and continuations, and those that a walk over their trie computes.
  std::int64_t tokens_asked = 0, tokens_computed = 0;
  bool generated = false;               // decided by what the model wrote, not by likelihood
  std::vector<std::string> notes = {};  // what a user must know
  io::Json summary = {};                // a task's own, beside its metrics (mmlu_pro); else null
};

class Task {
 public:
  virtual ~Task() = default;
  /// Stands in summaries, and names the journal.
  virtual const std::string& name() const = 0;
  /// Prepares what only the end of a run needs, since an error there would waste hours.
  /// @throws IoError
  virtual void prepare(const Session&) const {}
  /// Answers what the journal lacks.
  virtual TaskResult run(const Session& session) = 0;
};

}  // namespace espalier::eval
