// SPDX-License-Identifier: Apache-2.0
// Quoting of words and command lines for a POSIX shell.
#pragma once

#include <string>
#include <string_view>

namespace espalier {

/// Quotes `word` so that a shell reads it as one word, unchanged.
[[nodiscard]] inline std::string shell_word(std::string_view word) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:,=+@%";
  if (!word.empty() && word.find_first_not_of(kPlain) == std::string_view::npos) {
    return std::string(word);
  }
  std::string quoted = "'";
  for (const char c : word) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

/// The command line of a program, with `flag` appended unless it has it.
[[nodiscard]] inline std::string shell_command_with(int argc, const char* const* argv,
                                                    std::string_view flag) {
  std::string command;
  bool there = false;
  for (int i = 0; i < argc; ++i) {
    there = there || flag == argv[i];
    command += (i > 0 ? " " : "") + shell_word(argv[i]);
  }
  return there ? command : command + " " + std::string(flag);
}

}  // namespace espalier
