// SPDX-License-Identifier: Apache-2.0
// Folders are whole or absent, and what is there already is not touched.
#include <espalier/io/atomic_folder.hpp>
#include <espalier/io/file.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::io;
using espalier::test::message_of;
namespace fs = std::filesystem;

namespace {
std::ptrdiff_t entries(const fs::path& folder) {
  return std::distance(fs::directory_iterator(folder), fs::directory_iterator());
}
}  // namespace

TEST_CASE("A folder appears on commit, and an existing one is refused") {
  test::TemporaryFolder folder;
  {
    AtomicFolder out(folder / "made/here/");
    write_text(out.path() / "a", "1");
    CHECK_FALSE(fs::exists(folder / "made/here"));
    out.commit();
  }
  CHECK(test::read_bytes(folder / "made/here/a") == "1");
  CHECK(message_of<IoError>([&] { AtomicFolder again(folder / "made/here"); }, folder.path()) ==
        "made/here: exists already; remove it or choose another output folder");
  { AtomicFolder dropped(folder / "made/other"); }
  CHECK(entries(folder / "made") == 1);
}

TEST_CASE("Of two writers of one folder the second is refused at once") {
  test::TemporaryFolder folder;
  AtomicFolder first(folder / "out");
  CHECK_THAT(message_of<IoError>([&] { AtomicFolder second(folder / "out"); }, folder.path()),
             Catch::StartsWith("out: another run is writing it (process ") &&
                 Catch::EndsWith("); wait for it or choose another output"));
  first.commit();
  CHECK(fs::is_empty(folder / "out"));
}

TEST_CASE("A folder that somebody else made meanwhile is not replaced, though it is empty") {
  test::TemporaryFolder folder;
  {
    AtomicFolder out(folder / "out");
    write_text(out.path() / "a", "1");
    fs::create_directory(folder / "out");
    CHECK(message_of<IoError>([&] { out.commit(); }, folder.path()) ==
          "out: exists already; remove it or choose another output folder");
  }
  CHECK(fs::is_empty(folder / "out"));
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE(
    "Within a locked output a folder replaces the one of its name, which is there until then") {
  test::TemporaryFolder folder;
  const OutputLock lock = open_output(folder / "run");
  for (const char* content : {"old", "new"}) {
    AtomicFolder out(folder / "run/checkpoint-1", AtomicFolder::Within{lock});
    write_text(out.path() / "a", content);
    if (content == std::string("new")) {
      CHECK(test::read_bytes(folder / "run/checkpoint-1/a") == "old");
    }
    out.commit();
    CHECK(test::read_bytes(folder / "run/checkpoint-1/a") == content);
  }
  CHECK(entries(folder / "run") == 2);  // and the lock
}
