// SPDX-License-Identifier: Apache-2.0
#include <espalier/eval/journal.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"
#include "support/work_counter.hpp"

using namespace espalier;

TEST_CASE("scaling: going on with a journal, and finishing it") {
  const test::TemporaryFolder folder;
  test::require_linear(200, [&](std::size_t size) {
    std::vector<eval::Journal::Question> questions;
    std::string lines;
    for (std::size_t i = 0; i < size; ++i) {
      questions.push_back({static_cast<std::int64_t>(i), "p"});
      // All but the last ten, from the last to the first.
      if (i < 10) continue;
      lines += "{\"id\": " + std::to_string(size - 1 - i) +
               ", \"acc\": 1, \"prompt\": \"p\", \"task\": \"t\", \"model\": \"m\", "
               "\"computed_by\": \"c\"}\n";
    }
    test::write_bytes(folder / "journal.jsonl", lines);
    return [&folder, questions, size] {
      eval::Journal journal(folder / "journal.jsonl", "id", {"t", "m", "c"}, questions, true);
      for (std::size_t i = 0; i < size; ++i) {
        if (!journal.has(i)) journal.append(i, io::Json::object());
      }
      journal.finish();
    };
  });
}
