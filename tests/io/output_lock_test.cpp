// SPDX-License-Identifier: Apache-2.0
// Who owns an output: one run at a time, and dead ones lose theirs.
#include <sys/file.h>
#include <sys/wait.h>

#include <csignal>

#include <espalier/io/atomic_folder.hpp>
#include <espalier/io/file.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::io;
using espalier::test::message_of;
namespace fs = std::filesystem;

namespace {

/// A child that runs `f` and then waits to be killed.
class Child {
 public:
  template <class F>
  explicit Child(F&& f) {
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      f([&] {
        (void)!::write(ends[1], "x", 1);
        for (;;) ::pause();
      });
      ::_exit(1);
    }
    ::close(ends[1]);
    char ready = 0;
    REQUIRE(::read(ends[0], &ready, 1) == 1);
    ::close(ends[0]);
  }
  ~Child() { kill(); }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& item : fs::directory_iterator(folder)) names.push_back(item.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST_CASE("output lock: names its owner, and dies with it") {
  test::TemporaryFolder folder;
  Child other([&](const auto& wait) {
    const OutputLock lock = open_output(folder / "run");
    wait();
  });
  const std::string said =
      message_of<IoError>([&] { (void)open_output(folder / "run"); }, folder.path());
  CHECK_THAT(said, Catch::StartsWith("run: another run is writing it (process " +
                                     std::to_string(other.pid()) + " on "));
  const std::string text = test::read_bytes(folder / "run/.lock");
  CHECK_THAT(text, Catch::Contains("\nboot ") && Catch::Contains("\nstarted at tick "));
  other.kill();
  CHECK(names_in(folder / "run") == std::vector<std::string>{".lock"});
  { const OutputLock lock = open_output(folder / "run"); }
  CHECK(names_in(folder / "run").empty());
}

TEST_CASE("output lock: what a killed run left is removed by the next, that of a live one is not") {
  test::TemporaryFolder folder;
  const auto build = [&](const auto& wait) {
    AtomicFolder out(folder / "out");
    write_text(out.path() / "weights", "many");
    AtomicFile unfinished(out.path() / "more");
    wait();
  };
  Child first(build);
  const Leftovers during = find_leftovers(folder / "out");
  CHECK(during.empty());
  CHECK_THROWS_AS(AtomicFolder(folder / "out"), IoError);
  CHECK(names_in(folder.path()).size() == 2);
  first.kill();
  const Leftovers after = find_leftovers(folder / "out");
  REQUIRE(after.dead.size() == 1);
  CHECK(size_on_disk(after.dead[0]) == 4);
  AtomicFolder again(folder / "out");
  CHECK(find_leftovers(folder / "out").empty());
  again.commit();
}

TEST_CASE("output lock: a name of another boot or version is left alone until asked") {
  test::TemporaryFolder folder;
  const std::vector<std::string> foreign = {"out.tmp-00000000-abcdefghij", "out.tmp-1234"};
  const std::vector<std::string> unrelated = {"out.tmp-notes", "other.tmp-1234", "out.tmp-",
                                              "out.tmp-00000000-ABCDEFGHIJ"};
  for (const auto* names : {&foreign, &unrelated}) {
    for (const std::string& name : *names) fs::create_directory(folder / name);
  }
  { AtomicFolder out(folder / "out"); }
  CHECK(names_in(folder.path()).size() == 6);
  CHECK(remove_leftovers(folder / "out", false).undecided.size() == 2);
  CHECK(names_in(folder.path()).size() == 6);
  CHECK(remove_leftovers(folder / "out", true).undecided.size() == 2);
  CHECK(names_in(folder.path()).size() == 4);
}

TEST_CASE("output lock: a link in the place of a leftover or of the lock is not followed") {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "victim", "kept");
  const fs::path mine = io::detail::temporary_sibling(folder / "out");
  fs::create_symlink(folder / "victim", mine);
  CHECK(find_leftovers(folder / "out").dead.empty());
  fs::create_symlink(folder / "victim", folder / "out.lock");
  CHECK_THROWS_AS(AtomicFolder(folder / "out"), IoError);
  CHECK(test::read_bytes(folder / "victim") == "kept");
}

TEST_CASE("output lock: leftovers in the folders of an output are found") {
  test::TemporaryFolder folder;
  fs::create_directories(folder / "run/log/deep");
  Child other([&](const auto& wait) {
    AtomicFile a(folder / "run/summary.json"), b(folder / "run/log/deep/x");
    wait();
  });
  other.kill();
  CHECK(find_leftovers(folder / "run").dead.size() == 2);
  { const OutputLock lock = open_output(folder / "run"); }
  CHECK(find_leftovers(folder / "run").empty());
}

TEST_CASE("An output and an input must not lie within each other") {
  test::TemporaryFolder folder;
  fs::create_directories(folder / "model");
  fs::create_symlink(folder / "model", folder / "link");
  const auto refused = [&](const char* output, const char* input) {
    return message_of<UsageError>([&] { require_apart(folder / output, folder / input); },
                                  folder.path());
  };
  const std::string advice = "; choose another output folder";
  CHECK(refused("model/pruned", "model") ==
        "the output model/pruned lies within the input folder model" + advice);
  CHECK(refused("model/deep/er/", "model/") ==
        "the output model/deep/er/ lies within the input folder model/" + advice);
  CHECK(refused("link/pruned", "model") ==
        "the output link/pruned lies within the input folder model" + advice);
  CHECK(refused("model", "link") == "the output model is the input folder itself" + advice);
  CHECK(refused(".", "model") == "the output . contains the input folder model" + advice);
  CHECK_NOTHROW(require_apart(folder / "model-pruned", folder / "model"));
  CHECK_NOTHROW(require_apart(folder / "model/../pruned", folder / "model"));
}

TEST_CASE("Temporary names fit into the longest names, and no two are alike") {
  test::TemporaryFolder folder;
  const std::string longest(255, 'n');
  write_text(folder / longest, "text");
  CHECK(test::read_bytes(folder / longest) == "text");
  CHECK(io::detail::temporary_sibling("x") != io::detail::temporary_sibling("x"));
}
