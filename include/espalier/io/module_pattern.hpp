// SPDX-License-Identifier: Apache-2.0
// The patterns that PEFT names modules by: re.match(rf"(.*\.)?({pattern})$", module), with the
// syntax of Python's re. What PCRE2 reads differently is refused by name.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/module_pattern.hpp is host-only; include it from a .cpp"
#endif

#include <optional>
#include <string>
#include <string_view>

#include <espalier/core/inline.hpp>
#include <espalier/io/regex.hpp>

namespace espalier::io {

/// A pattern, compiled once.
class ModulePattern {
 public:
  ModulePattern(std::string pattern) : ModulePattern(pattern, "pattern '" + pattern + "'") {}
  ModulePattern(const char* pattern) : ModulePattern(std::string(pattern)) {}
  /// @param where names the pattern in messages
  /// @throws FormatError if the pattern is not understood
  ModulePattern(std::string pattern, const std::string& where);

  const std::string& text() const { return text_; }
  /// @throws FormatError if the pattern needs too many steps for this name
  [[nodiscard]] bool matches(const std::string& module) const;

 private:
  std::string text_;
  std::optional<Regex> regex_;
};

}  // namespace espalier::io

#ifdef ESP_BODIES

namespace espalier::io {

namespace detail {

/// What Python's re and PCRE2 read differently, as it stands in the pattern; empty if nothing.
ESP_INLINE std::string_view foreign_to_python(std::string_view pattern) {
  const auto starts = [&](std::size_t at, std::string_view with) {
    return pattern.substr(at, with.size()) == with;
  };
  bool in_class = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\') {
      constexpr std::string_view kSame = "AbBdDsSwWafnrtx";
      const char kind = i + 1 < pattern.size() ? pattern[i + 1] : '\0';
      const bool letter = (kind >= 'a' && kind <= 'z') || (kind >= 'A' && kind <= 'Z');
      const bool digit = kind >= '0' && kind <= '9';
      if (digit || (letter && kSame.find(kind) == std::string_view::npos)) {
        return pattern.substr(i, 2);
      }
      ++i;
    } else if (in_class) {
      if (c == '[') return pattern.substr(i, 2);
      in_class = c != ']';
    } else if (c == '[') {
      in_class = true;
      if (starts(i + 1, "^")) ++i;
      if (starts(i + 1, "]")) ++i;  // a literal one, in both
    } else if (c == '(' && (starts(i + 1, "*") || starts(i + 1, "?"))) {
      bool same = false;
      for (const std::string_view known : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?i:", "(?P<"}) {
        same = same || starts(i, known);
      }
      if (!same) return pattern.substr(i, 3);
    } else if (c == '{' && starts(i + 1, ",")) {
      return pattern.substr(i, 2);
    }
  }
  return {};
}

}  // namespace detail

ESP_INLINE ModulePattern::ModulePattern(std::string pattern, const std::string& where)
    : text_(std::move(pattern)) {
  const std::string_view foreign = detail::foreign_to_python(text_);
  ESP_REQUIRE(foreign.empty(), FormatError, where, " has '", foreign, "', which is not supported");
  regex_.emplace("(?:.*\\.)?(?:" + text_ + ")", RegexKind::whole_bytes, where);
}

ESP_INLINE bool ModulePattern::matches(const std::string& module) const {
  return RegexSearch(*regex_, module).find(0);
}

}  // namespace espalier::io
#endif
