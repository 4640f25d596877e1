// SPDX-License-Identifier: Apache-2.0
// What a shell makes of quoted words is what they were.
#include <cstdio>
#include <memory>

#include <espalier/core/shell.hpp>

#include "support/catch.hpp"

using namespace espalier;

namespace {
/// What `printf %s` of a shell prints for a word.
std::string through_a_shell(const std::string& word) {
  struct Close {
    void operator()(std::FILE* file) const { pclose(file); }
  };
  const std::string command = "printf %s " + shell_word(word);
  const std::unique_ptr<std::FILE, Close> pipe(popen(command.c_str(), "r"));
  std::string out;
  for (int c = std::fgetc(pipe.get()); c != EOF; c = std::fgetc(pipe.get())) {
    out += static_cast<char>(c);
  }
  return out;
}
}  // namespace

TEST_CASE("shell_word: a shell reads back what was written") {
  for (const char* word :
       {"",    "plain", "/a/b-c_d.e", "it's/out",  "a b",         "`ls`",      "$HOME",       "~",
        "a*b", "[x]",   "x;y",        "\"q\"",     "back\\slash", "tab\there", "line\nbreak", "ü",
        "#no", "!",     "{a,b}",      "a&b|c<d>e", "'",           "''"}) {
    CAPTURE(word);
    CHECK(through_a_shell(word) == word);
  }
}

TEST_CASE("shell_command_with: the flag stands there once") {
  const char* without[] = {"evaluate", "--output", "it's/out"};
  CHECK(shell_command_with(3, without, "--resume") == "evaluate --output 'it'\\''s/out' --resume");
  const char* with[] = {"evaluate", "--resume", "--output", "x"};
  CHECK(shell_command_with(4, with, "--resume") == "evaluate --resume --output x");
}
