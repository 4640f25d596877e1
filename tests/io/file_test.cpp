// SPDX-License-Identifier: Apache-2.0
// Files are whole or absent, and the system's errors are said.
#include <espalier/io/file.hpp>

#include "support/catch.hpp"
#include "support/file_size_limit.hpp"
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

TEST_CASE("A full disk is an error that says what to do, and leaves nothing behind") {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "x", "old");
  for (const std::size_t bytes : {std::size_t{100}, std::size_t{2} << 20}) {
    const test::FileSizeLimit limit(10);
    CHECK(message_of<IoError>([&] { write_text(folder / "x", std::string(bytes, 'y')); },
                              folder.path()) == "x: cannot write: File too large");
  }
  CHECK(test::read_bytes(folder / "x") == "old");
  CHECK(entries(folder.path()) == 1);
  CHECK(message_of<IoError>([] { io::detail::throw_errno("x", "write", ENOSPC); }) ==
        "x: cannot write: No space left on device; free some space and run again");
}

TEST_CASE(
    "Two writers of one file do not meet, and a link in the place of a name is not followed") {
  test::TemporaryFolder folder;
  AtomicFile first(folder / "x"), second(folder / "x");
  first.write("first");
  second.write("second");
  second.commit();
  first.commit();
  CHECK(test::read_bytes(folder / "x") == "first");
  test::write_bytes(folder / "victim", "kept");
  fs::create_symlink(folder / "victim", folder / "y");
  write_text(folder / "y", "new");
  CHECK(test::read_bytes(folder / "victim") == "kept");
  CHECK(test::read_bytes(folder / "y") == "new");
  CHECK(entries(folder.path()) == 3);
}

TEST_CASE("Reading says which path and why") {
  test::TemporaryFolder folder;
  CHECK(message_of<IoError>([&] { (void)read_text(folder / "absent"); }, folder.path()) ==
        "absent: cannot open: No such file or directory");
  fs::create_directory(folder / "sub");
  CHECK(message_of<IoError>([&] { (void)read_text(folder / "sub"); }, folder.path()) ==
        "sub: is a folder, expected a file");
  const std::string text(200000, 'q');
  test::write_bytes(folder / "t", text);
  CHECK(read_text(folder / "t") == text);
}

TEST_CASE("A pipe or a device in the place of a file is refused, and not waited for") {
  test::TemporaryFolder folder;
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(message_of<IoError>([&] { (void)read_text(folder / "pipe"); }, folder.path()) ==
        "pipe: is a named pipe, expected a file");
  CHECK(message_of<IoError>([&] { (void)read_text("/dev/zero"); }) ==
        "/dev/zero: is a device, expected a file");
  fs::create_symlink("/dev/zero", folder / "zero");
  CHECK(message_of<IoError>([&] { (void)read_text(folder / "zero"); }, folder.path()) ==
        "zero: is a device, expected a file");
}

TEST_CASE("A pipe that the process was given is read to its end") {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  REQUIRE(::write(ends[1], "piped", 5) == 5);
  ::close(ends[1]);
  CHECK(read_text("/dev/fd/" + std::to_string(ends[0])) == "piped");
  ::close(ends[0]);
}
