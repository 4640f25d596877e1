// SPDX-License-Identifier: Apache-2.0
// JSON lines: one value per line, blank lines skipped. Errors say "train.jsonl: line 17: ...".
#pragma once

#ifdef __CUDACC__
#error "espalier/io/jsonl.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/core/inline.hpp>
#include <espalier/io/json.hpp>

namespace espalier::io {

/// Calls `body(value, line)` for each line of `text`, lines counted from 1.
template <class Body>
void for_each_json_line(std::string_view text, const std::string& source, Body&& body) {
  std::size_t line = 0;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view row = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++line;
    if (row.find_first_not_of(" \t\r") == std::string_view::npos) continue;
    body(parse_json(row, espalier::detail::concat({source, ": line ", line})), line);
  }
}

/// Every value of the file, in order.
[[nodiscard]] ESP_INLINE std::vector<Json> read_jsonl(const std::filesystem::path& path) {
  std::vector<Json> values;
  for_each_json_line(read_text(path), path.string(),
                     [&](Json v, std::size_t) { values.push_back(std::move(v)); });
  return values;
}

}  // namespace espalier::io
