// SPDX-License-Identifier: Apache-2.0
// The numbered examples print what their first comment says, for any number of threads; and
// README.md quotes the first program as it is.
#include <cstdlib>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

const fs::path kRoot = fs::path(ESPALIER_TESTS_DIR).parent_path();

std::string output_of(const std::string& example, int threads) {
  const test::TemporaryFolder folder;
  const fs::path out = folder / "out.txt";
  const std::string command = "'" + std::string(ESPALIER_BIN_DIR) + "/" + example + "' --threads " +
                              std::to_string(threads) + " > '" + out.string() + "'";
  REQUIRE(std::system(command.c_str()) == 0);
  return test::read_bytes(out);
}

/// The first line after "// Expected:".
std::string expected_line(const std::string& source) {
  const std::string mark = "// Expected:\n//   ";
  const std::size_t begin = source.find(mark);
  REQUIRE(begin != std::string::npos);
  const std::size_t first = begin + mark.size();
  return source.substr(first, source.find('\n', first) - first);
}

}  // namespace

TEST_CASE("examples: the numbered ones print what they say, for any number of threads",
          "[examples]") {
  int found = 0;
  for (const auto& entry : fs::directory_iterator(kRoot / "examples")) {
    const std::string name = entry.path().stem().string();
    if (name[0] < '0' || name[0] > '9') continue;
    ++found;
    INFO(name);
    const std::string text = output_of(name, 1);
    CHECK(text.rfind(expected_line(test::read_bytes(entry.path())) + "\n", 0) == 0);
    CHECK(output_of(name, 3) == text);
  }
  CHECK(found >= 3);
}

TEST_CASE("examples: README.md quotes the first program as it is", "[examples]") {
  const std::string source = test::read_bytes(kRoot / "examples/00_first_program.cpp");
  const std::string program = source.substr(source.find("#include"));
  REQUIRE(program.size() > 500);
  CHECK(test::read_bytes(kRoot / "README.md").find("```cpp\n" + program + "```") !=
        std::string::npos);
}
