// SPDX-License-Identifier: Apache-2.0
// Journals, summary.json, results of LightEval.
#include <espalier/eval/journal.hpp>
#include <espalier/eval/result_table.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  const auto file = fuzz::file_of("summary.json", text);
  fuzz::accepts([&] { (void)eval::read_result(file); });
  fuzz::accepts([&] {
    eval::Journal journal(fuzz::file_of("journal.jsonl", text), "id", {"t", "m", "c"},
                          {{0, "p"}, {1, "q"}, {7, "p"}}, true);
    for (std::size_t i = 0; i < journal.size(); ++i) {
      if (journal.has(i)) fuzz::require(journal.entry(i).at("model").as_string() == "m");
    }
  });
}
