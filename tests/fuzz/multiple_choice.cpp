// SPDX-License-Identifier: Apache-2.0
// Questions with choices to compare: rows of one's own, and of every task that ships.
#include <espalier/eval/task_files.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  static const std::vector<eval::TaskDefinition> own = eval::own_forms();
  static const std::vector<eval::TaskDefinition> shipped = eval::shipped_tasks();
  const auto file = fuzz::file_of("questions.jsonl", text);
  fuzz::accepts([&] {
    for (const eval::Question& q : eval::load_questions({file}, own).questions) {
      fuzz::require(!q.contexts.empty() && !q.continuations.empty() && q.gold < q.size());
    }
  });
  for (const eval::TaskDefinition& task : shipped) {
    fuzz::accepts([&] {
      for (const eval::Question& q : eval::load_questions({file}, {task}).questions) {
        const bool asks = !q.contexts.empty() || task.form == eval::TaskForm::text;
        fuzz::require(asks && !q.continuations.empty() && q.gold < q.size());
      }
    });
  }
}
