// SPDX-License-Identifier: Apache-2.0
// Lines that are in the file whole or not at all.

#include <espalier/io/append_log.hpp>

#include "support/catch.hpp"
#include "support/file_size_limit.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::io;
using espalier::test::message_of;

TEST_CASE("append log: lines follow each other, over several openings") {
  test::TemporaryFolder folder;
  {
    AppendLog log(folder / "log");
    CHECK(log.lines().empty());
    log.append("one");
    CHECK(test::read_bytes(folder / "log") == "one\n");
    log.append(std::string(1 << 17, 'x'));
  }
  AppendLog log(folder / "log");
  CHECK(log.lines() == "one\n" + std::string(1 << 17, 'x') + "\n");
  log.append("");
  CHECK(test::read_bytes(folder / "log") == log.lines() + "\n");
}

TEST_CASE("append log: a torn last line is cut off") {
  test::TemporaryFolder folder;
  for (const std::string whole : {"", "one\n", "one\ntwo\n"}) {
    test::write_bytes(folder / "log", whole + "to");
    AppendLog log(folder / "log");
    CHECK(log.lines() == whole);
    CHECK(test::read_bytes(folder / "log") == whole);
    log.append("next");
    CHECK(test::read_bytes(folder / "log") == whole + "next\n");
  }
}

TEST_CASE("append log: one writer at a time") {
  test::TemporaryFolder folder;
  {
    const AppendLog first(folder / "log");
    CHECK(message_of<IoError>([&] { const AppendLog second(folder / "log"); }, folder.path()) ==
          "log: another run is writing it; wait for it or choose another output folder");
  }
  CHECK_NOTHROW(AppendLog(folder / "log"));
}

TEST_CASE("append log: a line that does not fit leaves the lines before it") {
  test::TemporaryFolder folder;
  AppendLog log(folder / "log");
  log.append("one");
  std::string said;
  {
    const test::FileSizeLimit limit(10);
    said = message_of<IoError>([&] { log.append("0123456789"); }, folder.path());
  }
  CHECK(said == "log: cannot write: File too large");
  CHECK(test::read_bytes(folder / "log") == "one\n");
  log.append("two");
  CHECK(test::read_bytes(folder / "log") == "one\ntwo\n");
}
