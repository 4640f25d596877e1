// SPDX-License-Identifier: Apache-2.0
// CSV of a task's rows.
#include <espalier/eval/task_rows.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  const auto file = fuzz::file_of("rows.csv", text);
  fuzz::accepts([&] {
    eval::for_each_row({file}, [](const io::Json& row) {
      fuzz::require(row.is_object() && row.find("file") != nullptr);
    });
  });
}
