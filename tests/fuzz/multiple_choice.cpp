// SPDX-License-Identifier: Apache-2.0
// Questions with choices to compare.
#include <espalier/eval/multiple_choice.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  fuzz::accepts([&] {
    const eval::ChoiceData data = eval::load_choices(fuzz::file_of("questions.jsonl", text));
    for (const eval::ChoiceQuestion& q : data.questions) {
      fuzz::require(!q.contexts.empty() && !q.continuations.empty());
    }
  });
}
