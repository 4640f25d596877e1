// SPDX-License-Identifier: Apache-2.0
// Training data: a JSONL file of records (records.hpp) as examples, truncated to a length. Examples
// without a target after truncation are dropped and counted.
#pragma once

#ifdef __CUDACC__
#error "espalier/data/dataset.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <string>
#include <vector>

#include <espalier/core/threads.hpp>
#include <espalier/data/records.hpp>

namespace espalier::data {

struct Dataset {
  std::vector<Example> examples;
  std::int64_t max_length = 0;
  std::int64_t cut = 0;           // examples longer than max_length
  std::int64_t dropped = 0;       // without a target left
  std::int64_t joined_pairs = 0;  // prompts and responses joined without a template
  std::int64_t tokens = 0;
  std::int64_t targets = 0;
  std::uint64_t fingerprint = 0;  // of the file's bytes
  std::string why_joined;         // why there was no template

  /// Warnings for the user, one line each.
  [[nodiscard]] ESP_INLINE std::vector<std::string> summary() const;
};

/// `max_length`: longer examples are truncated on the right.
/// @throws IoError; FormatError "data.jsonl: line 17: ..."; UsageError for a length below 2
[[nodiscard]] ESP_INLINE Dataset read_dataset(const std::filesystem::path& path,
                                              const RecordEncoder& encoder,
                                              std::int64_t max_length) {
  ESP_REQUIRE(max_length >= 2, UsageError, "max length is ", max_length,
              ", expected at least 2: a token and one to predict");
  const std::string content = io::read_text(path);
  const std::vector<Record> records = parse_records(content, path, encoder);
  std::vector<Example> examples(records.size());
  parallel_for(std::ssize(records), 16, [&](std::int64_t begin, std::int64_t end) {
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      examples[i] = encoder.encode_record(records[i]);
    }
  });
  Dataset data;
  data.max_length = max_length;
  data.fingerprint = stream_of(content);
  data.why_joined = encoder.why_no_template;
  for (const Record& r : records) {
    data.joined_pairs += r.kind == Record::Kind::pair && !encoder.render ? 1 : 0;
  }
  for (Example& e : examples) {
    data.cut += cut_right(e, max_length) ? 1 : 0;
    const std::int64_t targets = e.targets();
    if (targets == 0) {
      ++data.dropped;
      continue;
    }
    data.tokens += std::ssize(e.ids);
    data.targets += targets;
    data.examples.push_back(std::move(e));
  }
  ESP_REQUIRE(!data.examples.empty(), FormatError, path.string(), ": no example to train on (",
              records.size(), " lines, ", data.dropped,
              " without a target within the maximal length)");
  return data;
}

ESP_INLINE std::vector<std::string> Dataset::summary() const {
  using espalier::detail::concat;
  std::vector<std::string> lines = {
      concat({examples.size(), " examples, ", tokens, " tokens, ", targets, " of them targets"})};
  if (joined_pairs > 0) {
    lines.push_back(
        concat({"prompts and responses are joined without a chat template (", why_joined, ")"}));
  }
  if (cut > 0) lines.push_back(concat({cut, " examples cut to ", max_length, " tokens"}));
  if (dropped > 0) {
    lines.push_back(
        concat({dropped, " examples dropped, nothing to train on within ", max_length, " tokens"}));
  }
  return lines;
}

}  // namespace espalier::data
