// SPDX-License-Identifier: Apache-2.0
// The map between token texts and ids. Ids may have gaps. Memory grows with the largest id, so a
// file with an id far beyond its number of tokens is refused.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/vocabulary.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <espalier/core/error.hpp>

namespace espalier::text {

/// A hash for lookups of string_view in containers of strings, without a copy.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view s) const { return std::hash<std::string_view>{}(s); }
};

class Vocabulary {
 public:
  Vocabulary() = default;
  /// @param expected number of tokens to come; bounds the ids, see the head of this file.
  explicit Vocabulary(std::size_t expected) : limit_(expected * 4 + 65536) {
    ids_.reserve(expected);
    texts_.reserve(expected);
  }

  /// @throws FormatError if the id is out of bounds, or already stands for another text.
  void add(std::string_view text, std::int64_t id, std::string_view file) {
    ESP_REQUIRE(id >= 0 && static_cast<std::uint64_t>(id) < limit_, FormatError, file, ": token '",
                text, "' has id ", id, ", expected 0 <= id < ", limit_);
    const auto at = static_cast<std::size_t>(id);
    if (at >= texts_.size()) {
      texts_.resize(at + 1);
      present_.resize(at + 1, false);
    }
    ESP_REQUIRE(!present_[at] || texts_[at] == text, FormatError, file, ": id ", id,
                " stands for both '", texts_[at], "' and '", text, "'");
    texts_[at] = text;
    present_[at] = true;
    ids_.insert_or_assign(std::string(text), static_cast<std::int32_t>(id));
  }

  /// The id of a token's text, or -1.
  std::int32_t find(std::string_view text) const {
    const auto it = ids_.find(text);
    return it == ids_.end() ? -1 : it->second;
  }
  /// The text of an id, or null where the id has no token.
  const std::string* text(std::int64_t id) const {
    if (id < 0 || static_cast<std::uint64_t>(id) >= texts_.size()) return nullptr;
    return present_[static_cast<std::size_t>(id)] ? &texts_[static_cast<std::size_t>(id)] : nullptr;
  }
  /// Number of tokens; less than size() if ids have gaps.
  std::int64_t count() const { return static_cast<std::int64_t>(ids_.size()); }
  /// The largest id plus one.
  std::int64_t size() const { return static_cast<std::int64_t>(texts_.size()); }

 private:
  std::unordered_map<std::string, std::int32_t, StringHash, std::equal_to<>> ids_;
  std::vector<std::string> texts_;
  std::vector<bool> present_;
  std::size_t limit_ = 65536;
};

}  // namespace espalier::text
