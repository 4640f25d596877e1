// SPDX-License-Identifier: Apache-2.0
// The interface of a family to config.json: keys to numbers, texts and lists. hub/json_config.hpp
// implements it, so that models/ needs no JSON. A dot in a key leads into an object:
// "rope_parameters.rope_theta".
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>

namespace espalier {

/// All readers throw FormatError naming the file and the key.
class ConfigReader {
 public:
  virtual ~ConfigReader() = default;

  /// True if the key is present, even as null.
  virtual bool present(std::string_view key) const = 0;
  /// True if the key has a value other than null.
  virtual bool has(std::string_view key) const = 0;
  virtual double number(std::string_view key) const = 0;
  virtual std::int64_t integer(std::string_view key) const = 0;
  virtual bool truth(std::string_view key) const = 0;
  virtual std::string text(std::string_view key) const = 0;
  /// The elements of a list; a single value counts as a list of one, null as an empty one.
  virtual std::vector<std::int64_t> integers(std::string_view key) const = 0;
  virtual std::vector<std::string> texts(std::string_view key) const = 0;
  /// The place for messages: "config.json", or with the key.
  virtual std::string where(std::string_view key = {}) const = 0;

  double number_or(std::string_view key, double fallback) const {
    return has(key) ? number(key) : fallback;
  }
  bool truth_or(std::string_view key, bool fallback) const {
    return has(key) ? truth(key) : fallback;
  }
  std::string text_or(std::string_view key, std::string_view fallback) const {
    return has(key) ? text(key) : std::string(fallback);
  }
  std::int64_t positive(std::string_view key) const {
    const std::int64_t n = integer(key);
    ESP_REQUIRE(n > 0 && n <= 0x7fffffff, FormatError, where(key),
                ": expected 1 to 2147483647, found ", n);
    return n;
  }
  std::int64_t positive_or(std::string_view key, std::int64_t fallback) const {
    return has(key) ? positive(key) : fallback;
  }
  /// @throws UnsupportedError unless the key is absent or `wanted`
  void require(std::string_view key, std::string_view wanted) const {
    ESP_REQUIRE(!has(key) || text(key) == wanted, UnsupportedError, where(key), ": \"", text(key),
                "\" is not supported; expected \"", wanted, "\"");
  }
};

/// Keys appear in the order in which they are first set.
class ConfigWriter {
 public:
  virtual ~ConfigWriter() = default;
  virtual void set_null(std::string_view key) = 0;
  virtual void set_truth(std::string_view key, bool value) = 0;
  virtual void set_integer(std::string_view key, std::int64_t value) = 0;
  virtual void set_number(std::string_view key, double value) = 0;
  virtual void set_text(std::string_view key, std::string_view value) = 0;
  virtual void set_integers(std::string_view key, const std::vector<std::int64_t>& values) = 0;
  virtual void set_texts(std::string_view key, const std::vector<std::string>& values) = 0;
};

}  // namespace espalier
