// SPDX-License-Identifier: Apache-2.0
// What the interop tests share: a folder of their own, our programs, and the Python scripts that
// judge what these wrote.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace espalier::test {

/// A folder that is gone when the case ends.
class Scratch {
 public:
  std::string operator/(const std::string& name) const { return (folder_ / name).string(); }
  std::string write(const std::string& name, const std::string& text) const {
    write_bytes(folder_ / name, text);
    return *this / name;
  }

 private:
  TemporaryFolder folder_;
};

inline void shell(const std::string& command, const Scratch& scratch) {
  const std::string log = scratch / "log.txt";
  const int status = std::system(("( " + command + " ) >'" + log + "' 2>&1").c_str());
  INFO(command << "\n" << read_bytes(log));
  REQUIRE(status == 0);
}

/// One of our programs with its arguments.
inline void ours(const std::string& command, const Scratch& scratch) {
  shell(std::string(ESPALIER_BIN_DIR) + "/" + command, scratch);
}

inline void python(const std::string& script, const std::string& arguments,
                   const Scratch& scratch) {
  const char* python = std::getenv("ESPALIER_PEERS_PYTHON");
  REQUIRE(python != nullptr);
  shell(std::string(python) + " " + ESPALIER_TESTS_DIR + "/interop/" + script + " " + arguments,
        scratch);
}

}  // namespace espalier::test
