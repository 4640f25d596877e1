// SPDX-License-Identifier: Apache-2.0
// File names made of names in data: tasks, categories, metrics, models.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/file_name.hpp is host-only; include it from a .cpp"
#endif

#include <string>

#include <espalier/core/control_characters.hpp>
#include <espalier/io/fingerprint.hpp>

namespace espalier::eval {

/// `name` as one component of a path, unchanged where it can be. A slash and NUL become '_'. File
/// systems take at most 255 bytes: a longer name is cut after 160 bytes, between characters, and
/// gets a fingerprint of the whole, which tells it from others that begin alike.
[[nodiscard]] inline std::string file_name_of(std::string name) {
  constexpr std::size_t kLongest = 200, kKept = 160;  // an extension and a temporary suffix follow
  const bool special = name.empty() || name == "." || name == "..";
  const std::string whole = name;
  for (char& c : name) {
    if (c == '/' || c == '\0') c = '_';
  }
  if (special) return name + "_";
  if (name.size() <= kLongest) return name;
  std::size_t end = 0;
  for (std::size_t n; (n = std::max<std::size_t>(utf8_length(name, end), 1)) + end <= kKept;) {
    end += n;
  }
  return name.substr(0, end) + "-" + io::Fingerprint().add(whole).text();
}

}  // namespace espalier::eval
