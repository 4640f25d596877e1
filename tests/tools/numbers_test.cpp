// SPDX-License-Identifier: Apache-2.0
// Every option of every program that takes a number refuses what is none, what is not finite and
// what is out of range. The options are those that --help lists.
#include "cli/numbers.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <vector>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
namespace fs = std::filesystem;

namespace {

/// The programs of this build: whatever stands in the folder with the name of a source file.
std::vector<std::string> all_programs() {
  std::vector<std::string> names;
  const fs::path root = fs::path(ESPALIER_TESTS_DIR).parent_path();
  for (const char* folder : {"examples", "tools"}) {
    for (const auto& e : fs::directory_iterator(root / folder)) {
      const std::string name = e.path().stem().string();
      if (e.path().extension() != ".cpp" || !fs::exists(fs::path(ESPALIER_BIN_DIR) / name))
        continue;
      if (test::read_bytes(e.path()).find("cli/") != std::string::npos) names.push_back(name);
    }
  }
  std::sort(names.begin(), names.end());
  return names;
}

struct Outcome {
  int code = -1;
  std::string out, err;
};

Outcome run(const test::TemporaryFolder& folder, const std::string& arguments) {
  const std::string out = (folder / "out").string(), err = (folder / "err").string();
  const std::string command =
      std::string(ESPALIER_BIN_DIR) + "/" + arguments + " >" + out + " 2>" + err;
  const int status = std::system(command.c_str());
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, test::read_bytes(out),
          test::read_bytes(err)};
}

}  // namespace

TEST_CASE("numbers: every number on every command line is finite and in range", "[tools]") {
  const test::TemporaryFolder folder;
  const std::regex option("(--[a-z0-9-]+) (FLOAT|INT|UINT)\\b");
  const std::vector<std::string> reals = {"nan",  "-nan",   "inf",  "-inf", "1e308",
                                          "-1e9", "1e9999", "0x1p", "1,5"};
  const std::vector<std::string> integers = {
      "nan",   "-1", "9223372036854775808", "18446744073709551616", "-9223372036854775809",
      "1e300", "010"};
  const std::vector<std::string> programs = all_programs();
  REQUIRE(programs.size() >= 16);
  std::size_t floats = 0, checked = 0;
  for (const std::string& program : programs) {
    const std::string help = run(folder, program + " --help").out;
    for (std::sregex_iterator it(help.begin(), help.end(), option), end; it != end; ++it) {
      const std::string name = (*it)[1], type = (*it)[2];
      floats += type == "FLOAT" ? 1 : 0;
      for (const std::string& value : type == "FLOAT" ? reals : integers) {
        // All seeds of 64 bits are good.
        if (type == "UINT" && value == "9223372036854775808") continue;
        const Outcome o = run(folder, program + " " + name + "=" + value);
        INFO(program << " " << name << "=" << value << "\n" << o.err);
        CHECK(o.code == 2);
        CHECK(o.out.empty());
        CHECK(std::count(o.err.begin(), o.err.end(), '\n') == 1);
        CHECK_THAT(o.err, Catch::Contains(name + ": " + value + " is not a"));
        ++checked;
      }
    }
  }
  CHECK(floats >= 17);
  CHECK(checked >= 450);
}

TEST_CASE("numbers: validators take the ends of their ranges and nothing beyond", "[tools]") {
  const auto good = [](const CLI::Validator& v, std::string text) { return v(text).empty(); };
  const CLI::Validator seed = integer_within(0, ~std::uint64_t{0});
  for (const char* text : {"0", "7", "18446744073709551615"}) CHECK(good(seed, text));
  for (const char* text : {"-1", "18446744073709551616", "", "-", "+1", "1 ", " 1", "1.0", "07"}) {
    CHECK_FALSE(good(seed, text));
  }
  const CLI::Validator shift = integer_within(-3, 5);
  for (const char* text : {"-3", "0", "-0", "5"}) CHECK(good(shift, text));
  for (const char* text : {"-4", "6", "-18446744073709551615"}) CHECK_FALSE(good(shift, text));
  const CLI::Validator least = integer_within(std::numeric_limits<std::int64_t>::min(), 0);
  CHECK(good(least, "-9223372036854775808"));
  CHECK_FALSE(good(least, "-9223372036854775809"));
  CHECK(integer_within(2, 9).get_description() == "in [2 - 9]");

  const CLI::Validator share = real_within(0, 0.999);
  for (const char* text : {"0", "-0", "0.999", "5e-1", ".5"}) CHECK(good(share, text));
  for (const char* text :
       {"nan", "NAN", "nan(1)", "inf", "-inf", "1", "-1e-9", "", "0.5x", "1e999", "1e-999"}) {
    CHECK_FALSE(good(share, text));
  }
  std::string text = "nan";
  CHECK(share(text) == "nan is not a number from 0 to 0.999");
}
