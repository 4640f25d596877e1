// SPDX-License-Identifier: Apache-2.0
// Words for the person at the terminal, on standard error.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>
#include <utility>

namespace espalier {

/// As fmt::print(stderr, ...), but never throws: that nobody can read a message (a full disk, a
/// closed pipe) is no reason to lose the work that it is about.
template <class... Args>
void say(fmt::format_string<Args...> format, Args&&... args) {
  const std::string text = fmt::format(format, std::forward<Args>(args)...);
  (void)!std::fwrite(text.data(), 1, text.size(), stderr);
}

}  // namespace espalier
