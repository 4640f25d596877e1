// SPDX-License-Identifier: Apache-2.0
#include <espalier/io/csv.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;

namespace {

std::vector<std::vector<std::string>> cells(const std::string& text) {
  std::vector<std::vector<std::string>> out;
  for (const io::CsvRow& row : io::parse_csv(text, "t.csv")) out.push_back(row.cells);
  return out;
}

}  // namespace

TEST_CASE("csv: cells, quotes, lines", "[io]") {
  using Rows = std::vector<std::vector<std::string>>;
  CHECK(cells("a,b\n1,2\n") == Rows{{"a", "b"}, {"1", "2"}});
  CHECK(cells("\xef\xbb\xbf"
              "a,b\r\n,\r\n") == Rows{{"a", "b"}, {"", ""}});
  CHECK(cells("\"a, \"\"b\"\"\nc\",d\n\n\"\",e") == Rows{{"a, \"b\"\nc", "d"}, {"", "e"}});
  CHECK(cells("x\ry\n") == Rows{{"x\ry"}});
  CHECK(cells("").empty());
  CHECK(io::parse_csv("\"a\nb\"\nc\n", "t").at(1).line == 3);
}

TEST_CASE("csv: what is no table is refused with its line", "[io]") {
  const auto message = [](const std::string& text) {
    return test::message_of<FormatError>([&] { (void)io::parse_csv(text, "t.csv"); });
  };
  CHECK(message("a\n\"b\nc") == "t.csv: line 2: a quote that does not end");
  CHECK(message("a\n\"b\"c\n") == "t.csv: line 2: text behind a closing quote");
  CHECK(message("a,b\n1\n") == "t.csv: line 2: 1 cells, the first row has 2");
}
