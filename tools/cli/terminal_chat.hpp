// SPDX-License-Identifier: Apache-2.0
// A chat on the terminal: messages are lines of standard input. Ctrl-C ends the answer, not the
// chat; at the prompt, or pressed twice within one answer, it ends the program.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include <espalier/core/error.hpp>

#include "cli/print.hpp"
#include "cli/program.hpp"

namespace espalier {

namespace detail {
inline volatile sig_atomic_t cut_count = 0;

inline void on_cut(int) {
  if (cut_count > 0) _exit(kExitInterrupted);
  cut_count = 1;
}
}  // namespace detail

class TerminalChat {
 public:
  TerminalChat() {
    struct sigaction action = {};
    action.sa_handler = detail::on_cut;  // without SA_RESTART: it ends a read
    ESP_REQUIRE(sigaction(SIGINT, &action, nullptr) == 0, Error,
                "cannot handle Ctrl-C: ", std::strerror(errno));
  }
  ~TerminalChat() { std::free(line_); }
  TerminalChat(const TerminalChat&) = delete;
  TerminalChat& operator=(const TerminalChat&) = delete;

  /// The next message that is not blank, empty at the end of the input. A terminal shows "> ".
  /// @throws Interrupted on Ctrl-C, IoError for what cannot be read
  std::optional<std::string> next_message() {
    while (true) {
      detail::cut_count = 0;
      if (isatty(STDIN_FILENO) == 1) print(stderr, "> ");
      errno = 0;
      const ssize_t size = getline(&line_, &capacity_, stdin);
      if (detail::cut_count > 0) throw Interrupted("the chat was ended at its prompt");
      if (size < 0) {
        ESP_REQUIRE(std::feof(stdin) || errno == 0, IoError,
                    "standard input: cannot read: ", std::strerror(errno));
        return std::nullopt;
      }
      std::string text(line_, static_cast<std::size_t>(size));
      while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
      if (text.find_first_not_of(" \t") != text.npos) return text;
    }
  }

  /// Has Ctrl-C been pressed since the message was read?
  static bool answer_cut() { return detail::cut_count > 0; }

 private:
  char* line_ = nullptr;
  std::size_t capacity_ = 0;
};

}  // namespace espalier
