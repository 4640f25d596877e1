// SPDX-License-Identifier: Apache-2.0
#include <espalier/io/mapped_file.hpp>

#include "support/catch.hpp"
#include "support/in_child.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::io;
using espalier::test::message_of;

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

TEST_CASE("What is no regular file is not mapped") {
  test::TemporaryFolder folder;
  std::filesystem::create_directory(folder / "sub");
  CHECK(message_of<IoError>([&] { MappedFile file(folder / "sub"); }, folder.path()) ==
        "sub: is a folder, expected a file");
  REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(message_of<IoError>([&] { MappedFile file(folder / "pipe"); }, folder.path()) ==
        "pipe: is a named pipe, expected a file");
}

TEST_CASE("A mapped file that another program cuts short ends the process with its name") {
  test::TemporaryFolder folder;
  const std::string path = (folder / "shard").string();
  test::write_bytes(path, std::string(3 << 20, 'w'));
  test::write_bytes(folder / "other", std::string(1 << 20, 'o'));
  const test::ChildResult result = test::in_child([&] {
    report_cut_files("demo");
    const MappedFile other(folder / "other"), file(path);
    std::filesystem::resize_file(path, 4096);
    volatile char last = static_cast<char>(file.bytes().get()[file.size() - 1]);
    (void)last;
  });
  CHECK(result.status == 1);
  CHECK(result.text == "demo: " + path +
                           ": was cut short while it was being read; if something replaced it, run "
                           "again\n");
}

TEST_CASE("A bus error elsewhere is what it was") {
  const test::ChildResult result = test::in_child([] {
    report_cut_files("demo");
    ::raise(SIGBUS);
  });
  CHECK(result.status == 128 + SIGBUS);
  CHECK(result.text.empty());
}
