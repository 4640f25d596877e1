// SPDX-License-Identifier: Apache-2.0
// The identity of files: every byte counts, the name does not; what is kept of large ones is used
// while the file is the same.
#include <fcntl.h>
#include <sys/stat.h>

#include <chrono>
#include <cstdlib>
#include <optional>
#include <thread>

#include <espalier/core/error.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/io/fingerprint.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::io;
namespace fs = std::filesystem;

namespace {

/// Sets a variable of the environment for one case.
class Variable {
 public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    ::setenv(name, value.c_str(), 1);
  }
  ~Variable() {
    if (old_) {
      ::setenv(name_, old_->c_str(), 1);
    } else {
      ::unsetenv(name_);
    }
  }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

std::string bytes_of(std::size_t size) {
  std::string bytes(size, '\0');
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 2654435761u >> 24);
  return bytes;
}

}  // namespace

TEST_CASE("fingerprint: every byte and the length count, the name and the threads do not") {
  test::TemporaryFolder folder;
  const std::size_t piece = std::size_t{16} << 20;
  std::string bytes = bytes_of(piece + 100);
  test::write_bytes(folder / "a", bytes);
  const std::string print = fingerprint_of_file(folder / "a");
  CHECK(print.size() == 32);
  fs::copy(folder / "a", folder / "b");
  for (const int threads : {1, 3}) {
    set_num_threads(threads);
    CHECK(fingerprint_of_file(folder / "b") == print);
  }
  for (const std::size_t at : {std::size_t{0}, piece / 3, piece - 1, piece, piece + 99}) {
    bytes[at] ^= 1;
    test::write_bytes(folder / "b", bytes);
    bytes[at] ^= 1;
    CHECK(fingerprint_of_file(folder / "b") != print);
  }
  for (const std::size_t size : {std::size_t{0}, piece, piece + 99}) {
    test::write_bytes(folder / "b", bytes.substr(0, size));
    CHECK(fingerprint_of_file(folder / "b") != print);
  }
  CHECK_THROWS_AS(fingerprint_of_file(folder / "none"), IoError);
}

TEST_CASE("fingerprint: of a large file it is kept, and dropped when the file changes") {
  test::TemporaryFolder folder;
  const Variable cache("XDG_CACHE_HOME", (folder / "cache").string());
  const fs::path file = folder / "large";
  test::write_bytes(file, "head");
  fs::resize_file(file, (std::size_t{64} << 20) + 5);  // sparse
  const std::string print = fingerprint_of_file(file);
  CHECK_FALSE(fs::exists(folder / "cache"));  // the file is too new to trust its times
  std::this_thread::sleep_for(std::chrono::milliseconds(3100));
  CHECK(fingerprint_of_file(file) == print);
  const fs::path kept = *fs::directory_iterator(folder / "cache" / "espalier");
  std::string text = test::read_bytes(kept);
  REQUIRE(text.ends_with(print + "\n"));

  const std::string other(32, 'f');
  test::write_bytes(kept, text.substr(0, text.size() - 33) + other + "\n");
  CHECK(fingerprint_of_file(file) == other);  // it is read
  test::write_bytes(kept, text.substr(0, text.size() - 7));
  CHECK(fingerprint_of_file(file) == print);  // damaged: computed anew
  test::write_bytes(kept, text.substr(0, text.size() - 33) + other + "\n");

  struct stat before {};
  REQUIRE(::stat(file.c_str(), &before) == 0);
  {
    std::fstream change(file, std::ios::in | std::ios::out | std::ios::binary);
    change.seekp(1 << 20);
    change.put('x');
  }
  const timespec times[2] = {before.st_atim, before.st_mtim};
  REQUIRE(::utimensat(AT_FDCWD, file.c_str(), times, 0) == 0);  // as if nothing had happened
  const std::string changed = fingerprint_of_file(file);
  CHECK(changed != other);
  CHECK(changed != print);
}
