// SPDX-License-Identifier: Apache-2.0
// Packs examples into the rows of a batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <numeric>
#include <vector>

#include <espalier/data/batches.hpp>

namespace espalier::data {

/// Best-fit decreasing: the longest example first, each into the fullest row that has room for it.
/// Rows are ordered by their first example. @throws Error when an example is longer than
/// `max_length`.
[[nodiscard]] inline std::vector<Row> pack_examples(const std::vector<Example>& examples,
                                                    std::int64_t max_length) {
  const auto length = [&](std::size_t i) {
    return static_cast<std::int64_t>(examples[i].ids.size());
  };
  std::vector<std::size_t> order(examples.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return length(a) > length(b); });
  std::vector<Row> rows;
  std::multimap<std::int64_t, std::size_t> by_room;  // room left -> row
  for (const std::size_t i : order) {
    const std::int64_t need = length(i);
    ESP_REQUIRE(need <= max_length, Error, "pack_examples: example ", i, " has ", need,
                " tokens, expected at most ", max_length);
    const auto fit = by_room.lower_bound(need);
    std::size_t row = rows.size();
    std::int64_t room = max_length;
    if (fit == by_room.end()) {
      rows.emplace_back();
    } else {
      room = fit->first;
      row = fit->second;
      by_room.erase(fit);
    }
    rows[row].push_back(static_cast<std::int64_t>(i));
    by_room.emplace(room - need, row);
  }
  for (Row& row : rows) std::sort(row.begin(), row.end());
  std::sort(rows.begin(), rows.end(),
            [](const Row& a, const Row& b) { return a.front() < b.front(); });
  return rows;
}

}  // namespace espalier::data
