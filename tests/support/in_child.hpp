// SPDX-License-Identifier: Apache-2.0
// Runs a function in a forked process and returns what it wrote to stderr: for what a sanitizer
// ends.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace espalier::test {

struct ChildResult {
  int status = -1;  // exit code, or 128 + signal
  std::string text;
};

template <class F>
ChildResult in_child(F&& f) {
  int ends[2];
  if (pipe(ends) != 0) return {};
  const pid_t child = fork();
  if (child == 0) {
    dup2(ends[1], 2);
    close(ends[0]);
    close(ends[1]);
    f();
    _exit(0);
  }
  close(ends[1]);
  ChildResult result;
  char buffer[4096];
  for (ssize_t n; (n = read(ends[0], buffer, sizeof buffer)) > 0;) {
    result.text.append(buffer, static_cast<std::size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return result;
}

}  // namespace espalier::test
