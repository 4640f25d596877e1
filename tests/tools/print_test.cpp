// SPDX-License-Identifier: Apache-2.0
// What programs print of names and texts from files: harmless on a terminal, unchanged in a pipe,
// and always harmless in tables, warnings and error lines.
#include "cli/print.hpp"

#include <pty.h>
#include <termios.h>

#include <cstdlib>

#include "cli/program.hpp"
#include "cli/progress.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;

namespace {

const std::string kBad = "a\x1b]0;title\x07\x1b[2J\u009b31m\xc3\xa4\r\tb\n";

/// What a terminal receives from `program`.
template <class F>
std::string on_terminal(F&& program) {
  int screen = -1, line = -1;
  termios raw = {};
  cfmakeraw(&raw);
  REQUIRE(openpty(&screen, &line, nullptr, &raw, nullptr) == 0);
  std::FILE* file = fdopen(line, "w");
  REQUIRE(file != nullptr);
  program(file);
  std::fputs("END", file);
  std::fclose(file);
  std::string all;
  char buffer[4096];
  for (ssize_t n; (n = read(screen, buffer, sizeof buffer)) > 0;) {
    all.append(buffer, static_cast<std::size_t>(n));
  }
  close(screen);
  REQUIRE(all.ends_with("END"));
  return all.substr(0, all.size() - 3);
}

}  // namespace

TEST_CASE("print: control characters reach a file, and no terminal", "[tools]") {
  CHECK(on_terminal([](std::FILE* f) { print(f, "{}|{}\n", kBad, 7); }) ==
        "a\\x1b]0;title\\x07\\x1b[2J\\x9b31m\xc3\xa4\\x0d\tb\n|7\n");
  const test::TemporaryFolder folder;
  std::FILE* file = std::fopen((folder / "out").c_str(), "wb");
  REQUIRE(file != nullptr);
  print(file, "{}|{}\n", kBad, 7);
  std::fclose(file);
  CHECK(test::read_bytes(folder / "out") == kBad + "|7\n");
}

TEST_CASE("print: tables and error lines escape names", "[tools]") {
  Table table({"name\x1b[2J", "value"});
  table.add_row({"x\ny\r", "1"});
  CHECK(table.text() == "name\\x1b[2J  value\nx\\x0ay\\x0d       1\n");
  CHECK(espalier::detail::one_line("a.json: \"\x1b[2J\r\" \u009b is\nbad\n") ==
        "a.json: \"\\x1b[2J\\x0d\" \\x9b is bad");
}

TEST_CASE("print: a program that reads hostile names is harmless", "[tools]") {
  const test::TemporaryFolder folder;
  std::filesystem::copy(std::string(ESPALIER_TESTS_DIR) + "/golden/tiny_mixtral/model",
                        folder / "m");
  const auto said = [&](const std::string& command) {
    const std::string err = (folder / "err").string();
    const std::string line = std::string(ESPALIER_BIN_DIR) + "/" + command + " >/dev/null 2>" + err;
    CHECK(std::system(line.c_str()) != 0);
    return test::read_bytes(err);
  };
  test::write_bytes(folder / "m/config.json", "{\"model_type\": \"\\u001b[2Jx\\u0000y\\r\"}");
  const std::string refused = said("inspect " + (folder / "m").string());
  CHECK_THAT(refused, Catch::Contains("\\x1b[2Jx\\x00y\\x0d") && Catch::Contains("known family"));
  CHECK_THAT(said("inspect --bad\x1b[2J"), !Catch::Contains("\x1b"));
}
