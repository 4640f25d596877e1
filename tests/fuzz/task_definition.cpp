// SPDX-License-Identifier: Apache-2.0
// A task's definition on the first line, and rows for it on the others.
#include <espalier/eval/task_files.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  fuzz::accepts([&] {
    const eval::TaskDefinition task(io::parse_json(text.substr(0, end), "task.json"));
    const std::string_view rows = text.substr(std::min(end + 1, text.size()));
    (void)eval::load_questions({fuzz::file_of("rows.jsonl", rows)}, {task});
  });
}
