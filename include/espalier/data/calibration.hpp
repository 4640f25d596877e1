// SPDX-License-Identifier: Apache-2.0
// Calibration texts as token sequences: analyze scores experts on them, verify compares logits.
#pragma once

#ifdef __CUDACC__
#error "espalier/data/calibration.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <string>
#include <vector>

#include <espalier/data/records.hpp>
#include <espalier/io/sha256.hpp>

namespace espalier::data {

struct CalibrationSet {
  std::vector<std::vector<std::int32_t>> sequences;
  std::int64_t tokens = 0;
  std::string file_sha256 = {};  // of what was read
};

/// One sequence per record (records.hpp), up to `max_tokens` in total (0: no limit); the last one
/// is truncated. Conversations and prompts with responses have the tokens of training. A text has
/// the tokenizer's default special tokens and no end token, because it may be part of a longer one.
/// @throws FormatError naming the line
[[nodiscard]] ESP_INLINE CalibrationSet read_calibration(const std::filesystem::path& path,
                                                         const RecordEncoder& encoder,
                                                         std::int64_t max_tokens) {
  CalibrationSet set;
  const std::string text = io::read_text(path);  // once: a pipe gives nothing the second time
  set.file_sha256 = io::sha256(text);
  for (const Record& r : parse_records(text, path, encoder)) {
    if (max_tokens > 0 && set.tokens >= max_tokens) break;
    std::vector<std::int32_t> ids = r.kind == Record::Kind::text
                                        ? encoder.encode(r.turns[0].content, true)
                                        : encoder.encode_record(r).ids;
    if (max_tokens > 0) {
      const auto room = static_cast<std::size_t>(max_tokens - set.tokens);
      if (ids.size() > room) ids.resize(room);
    }
    set.tokens += std::ssize(ids);
    if (!ids.empty()) set.sequences.push_back(std::move(ids));
  }
  ESP_REQUIRE(set.tokens > 0, FormatError, path.string(), ": has no text to calibrate with");
  return set;
}

}  // namespace espalier::data
