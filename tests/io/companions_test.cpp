// SPDX-License-Identifier: Apache-2.0
// What is carried from a checkpoint folder to the next.
#include <sys/stat.h>

#include <espalier/core/error.hpp>
#include <espalier/io/companions.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::io;
using espalier::test::message_of;
namespace fs = std::filesystem;

TEST_CASE("All but the weights is carried along, at any depth") {
  test::TemporaryFolder folder;
  const fs::path from = folder / "from", to = folder / "to";
  fs::create_directories(from / "original/deep");
  for (const char* name : {".git", ".cache"}) fs::create_directories(from / name);
  fs::create_directory(to);
  for (const char* name :
       {"config.json", "tokenizer.json", "chat_template.jinja", ".gitattributes", "LICENSE",
        "original/deep/notes.txt", "original/deep/config.json", "original/consolidated.00.pth",
        "original/deep/model.onnx", "model-00001-of-00002.safetensors", "pytorch_model.bin",
        "model.safetensors.index.json", "consolidated.00.pt", ".git/HEAD", ".cache/token",
        "out.tmp-1234", "target"}) {
    test::write_bytes(from / name, name);
  }
  fs::create_symlink(from / "target", from / "link.txt");
  fs::create_symlink("/nowhere", from / "linked.safetensors");
  REQUIRE(::mkfifo((from / "pipe").c_str(), 0600) == 0);
  const std::vector<fs::path> expected = {".gitattributes",
                                          "LICENSE",
                                          "chat_template.jinja",
                                          "link.txt",
                                          "original/deep/config.json",
                                          "original/deep/notes.txt",
                                          "tokenizer.json"};
  CHECK(companions(from, {"config.json", "target"}) == expected);
  std::uintmax_t bytes = 0;
  copy_companions(from, to, {"config.json", "target"});
  std::vector<fs::path> copied;
  for (const auto& entry : fs::recursive_directory_iterator(to)) {
    if (!entry.is_regular_file()) continue;
    copied.push_back(fs::relative(entry.path(), to));
    bytes += entry.file_size();
  }
  std::sort(copied.begin(), copied.end());
  CHECK(copied == expected);
  CHECK(companion_bytes(from, {"config.json", "target"}) == bytes);
  CHECK_FALSE(fs::is_symlink(to / "link.txt"));
  CHECK(test::read_bytes(to / "link.txt") == "target");
}

TEST_CASE("A link that leads out of the folder is refused: it may carry a secret") {
  test::TemporaryFolder folder;
  fs::create_directories(folder / "from/sub");
  fs::create_directory(folder / "to");
  test::write_bytes(folder / "secret", "key");
  fs::create_symlink("../../secret", folder / "from/sub/notes");
  CHECK(message_of<IoError>([&] { copy_companions(folder / "from", folder / "to", {}); },
                            folder.path()) ==
        "from/sub/notes: is a link to secret, outside of the folder that is copied; remove it or "
        "put the file there");
  CHECK(fs::is_empty(folder / "to"));
  fs::remove(folder / "from/sub/notes");
  for (const auto& [target, why] : std::vector<std::pair<fs::path, std::string>>{
           {folder / "from", "is a link to from, which is no file"},
           {"loop", "is a link that cannot be followed: Too many levels of symbolic links"},
           {"gone", "is a link that cannot be followed: No such file or directory"}}) {
    fs::create_symlink(target, folder / "from/sub/loop");
    CHECK_THAT(message_of<IoError>([&] { (void)companions(folder / "from", {}); }, folder.path()),
               Catch::StartsWith("from/sub/loop: " + why));
    fs::remove(folder / "from/sub/loop");
  }
}

TEST_CASE("A snapshot of the hub's cache is links to its blobs, which are followed") {
  test::TemporaryFolder folder;
  const fs::path snapshot = folder / "hub/models--a--b/snapshots/abc";
  fs::create_directories(snapshot);
  fs::create_directories(folder / "hub/models--a--b/blobs");
  fs::create_directory(folder / "to");
  test::write_bytes(folder / "hub/models--a--b/blobs/85b2", "words");
  fs::create_symlink("../../blobs/85b2", snapshot / "tokenizer.json");
  copy_companions(snapshot, folder / "to", {});
  CHECK(test::read_bytes(folder / "to/tokenizer.json") == "words");
  test::write_bytes(folder / "hub/models--a--b/other", "no blob");
  fs::create_symlink("../../other", snapshot / "other");
  CHECK_THROWS_AS(companions(snapshot, {}), IoError);
}

TEST_CASE("Copies have the content, not the mode: no set-user-id, and what the umask leaves") {
  test::TemporaryFolder folder;
  fs::create_directory(folder / "from");
  fs::create_directory(folder / "to");
  test::write_bytes(folder / "from/run.sh", "echo");
  REQUIRE(::chmod((folder / "from/run.sh").c_str(), 04755) == 0);
  const mode_t before = ::umask(077);
  copy_companions(folder / "from", folder / "to", {});
  ::umask(before);
  struct stat info {};
  REQUIRE(::stat((folder / "to/run.sh").c_str(), &info) == 0);
  CHECK((info.st_mode & 07777) == 0600);
}
