// SPDX-License-Identifier: Apache-2.0
// print(...) is fmt::print for texts with names and contents of files in them: on a terminal their
// control characters are escaped, all but line breaks and tabs. Into files and pipes the bytes go
// unchanged, for other programs.
#pragma once

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <utility>

#include <espalier/core/control_characters.hpp>

namespace espalier {

/// A failed write shows at the end of the program, where it flushes its output.
ESP_INLINE void print_text(std::FILE* file, const std::string& text) {
  const bool terminal = isatty(fileno(file)) == 1;
  const std::string shown = terminal ? escape_controls(text, "\n\t") : std::string();
  const std::string& bytes = terminal ? shown : text;
  (void)!std::fwrite(bytes.data(), 1, bytes.size(), file);
}

template <class... Args>
void print(std::FILE* file, fmt::format_string<Args...> format, Args&&... args) {
  print_text(file, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void print(fmt::format_string<Args...> format, Args&&... args) {
  print_text(stdout, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace espalier
