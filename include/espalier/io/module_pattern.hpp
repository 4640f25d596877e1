// SPDX-License-Identifier: Apache-2.0
// The patterns that PEFT names modules by: re.match(rf"(.*\.)?({pattern})$", module).
#pragma once

#ifdef __CUDACC__
#error "espalier/io/module_pattern.hpp is host-only; include it from a .cpp"
#endif

#include <string>

#include <espalier/core/inline.hpp>

namespace espalier::io {

[[nodiscard]] bool matches_module(const std::string& pattern, const std::string& module);
/// The error in a pattern; empty for a valid one.
[[nodiscard]] std::string module_pattern_error(const std::string& pattern);

}  // namespace espalier::io

#ifdef ESP_BODIES
#include <regex>

namespace espalier::io {

namespace detail {
inline std::regex module_regex(const std::string& pattern) {
  return std::regex("(.*\\.)?(" + pattern + ")");
}
}  // namespace detail

ESP_INLINE bool matches_module(const std::string& pattern, const std::string& module) {
  return std::regex_match(module, detail::module_regex(pattern));
}
ESP_INLINE std::string module_pattern_error(const std::string& pattern) {
  try {
    (void)detail::module_regex(pattern);
    return {};
  } catch (const std::regex_error& e) {
    return e.what();
  }
}

}  // namespace espalier::io
#endif
