// SPDX-License-Identifier: Apache-2.0
// Files are whole or absent, and the disk's errors are said.
#include <espalier/io/file.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::io;
using espalier::test::message_of;
namespace fs = std::filesystem;

namespace {
std::size_t entries(const fs::path& folder) {
  return static_cast<std::size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}
}  // namespace

TEST_CASE("A file appears on commit, with every byte, and replaces the old one") {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "x", "old");
  const std::string large(3 << 20, 'z');
  {
    AtomicFile file(folder / "x");
    file.write("head ");
    file.write(large);
    file.write(" tail");
    CHECK(file.written_bytes() == large.size() + 10);
    CHECK(test::read_bytes(folder / "x") == "old");
    file.commit();
  }
  CHECK(test::read_bytes(folder / "x") == "head " + large + " tail");
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE("A file that is not committed leaves nothing behind") {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "x", "old");
  {
    AtomicFile file(folder / "x");
    file.write(std::string(2 << 20, 'y'));
    AtomicFile moved(std::move(file));
    moved.write("more");
  }
  CHECK(test::read_bytes(folder / "x") == "old");
  CHECK(entries(folder.path()) == 1);
}

TEST_CASE("A full disk is an error that says what to do") {
  REQUIRE(fs::exists("/dev/full"));
  // The temporary name leads to the device that is always full.
  test::TemporaryFolder folder;
  fs::create_symlink("/dev/full", io::detail::temporary_sibling(folder / "x"));
  const auto write_all = [&](std::size_t bytes) {
    AtomicFile file(folder / "x");
    file.write(std::string(bytes, 'y'));
    file.commit();
  };
  for (const std::size_t bytes : {std::size_t{10}, std::size_t{2} << 20}) {
    CHECK(message_of<IoError>([&] { write_all(bytes); }, folder.path()) ==
          "x: cannot write: No space left on device; free some space and run again");
    CHECK_FALSE(fs::exists(folder / "x"));
    fs::remove(io::detail::temporary_sibling(folder / "x"));
    fs::create_symlink("/dev/full", io::detail::temporary_sibling(folder / "x"));
  }
}

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

TEST_CASE("Reading says which path and why") {
  test::TemporaryFolder folder;
  CHECK(message_of<IoError>([&] { (void)read_text(folder / "absent"); }, folder.path()) ==
        "absent: cannot open: No such file or directory");
  fs::create_directory(folder / "sub");
  CHECK(message_of<IoError>([&] { (void)read_text(folder / "sub"); }, folder.path()) ==
        "sub: is a folder, expected a file");
  CHECK(message_of<IoError>([&] { MappedFile file(folder / "sub"); }, folder.path()) ==
        "sub: is not a regular file");
  const std::string text(200000, 'q');
  test::write_bytes(folder / "t", text);
  CHECK(read_text(folder / "t") == text);
}

TEST_CASE("A mapped file outlives its object and cannot be harmed through the mapping") {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "m", "0123456789");
  std::shared_ptr<std::byte> bytes;
  {
    const MappedFile file(folder / "m");
    CHECK(file.size() == 10);
    char middle[4];
    file.read(3, middle, 4);
    CHECK(std::string(middle, 4) == "3456");
    CHECK(message_of<IoError>([&] { file.read(8, middle, 4); }, folder.path()) ==
          "m: ends at byte 10, 2 more were expected; something cut it short while it was being "
          "read");
    bytes = file.bytes();
  }
  bytes.get()[0] = std::byte{'X'};
  CHECK(static_cast<char>(bytes.get()[9]) == '9');
  CHECK(test::read_bytes(folder / "m") == "0123456789");
  test::write_bytes(folder / "empty", "");
  CHECK(MappedFile(folder / "empty").size() == 0);
}
