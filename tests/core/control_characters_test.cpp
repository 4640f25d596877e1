// SPDX-License-Identifier: Apache-2.0
#include <espalier/core/control_characters.hpp>
#include <espalier/core/error.hpp>

#include "support/catch.hpp"

using namespace espalier;
using namespace std::string_literals;

TEST_CASE("escape_controls: no byte is left that steers a terminal", "[core]") {
  CHECK(escape_controls("plain äöü 🌳 \"\\%{}") == "plain äöü 🌳 \"\\%{}");
  CHECK(escape_controls("\x1b]0;title\x07\x1b[2J\r") == "\\x1b]0;title\\x07\\x1b[2J\\x0d");
  CHECK(escape_controls("a\0b"s) == "a\\x00b");
  CHECK(escape_controls("\x7f \u009b2J \u00a0") == "\\x7f \\x9b2J \u00a0");
  CHECK(escape_controls("\x9b"
                        "2J \xff \xc3(") == "\\x9b2J \\xff \\xc3(");
  CHECK(escape_controls("a\n\tb\r\n", "\n\t") == "a\n\tb\\x0d\n");
  for (int c = 0; c < 256; ++c) {
    const std::string one(1, static_cast<char>(c));
    const bool printable = c >= 0x20 && c < 0x7f;
    CHECK(escape_controls(one) == (printable ? one : escape_controls(one)));
    CHECK(escape_controls(one).size() == (printable ? 1u : 4u));
  }
}

TEST_CASE("utf8_length: strict UTF-8", "[core]") {
  // The ends of every range of RFC 3629, and their neighbours outside.
  const struct {
    std::string text;
    std::size_t length;
  } cases[] = {{"a", 1},
               {"\xc2\x80", 2},
               {"\xdf\xbf", 2},
               {"\xe0\xa0\x80", 3},
               {"\xed\x9f\xbf", 3},
               {"\xee\x80\x80", 3},
               {"\xef\xbf\xbf", 3},
               {"\xf0\x90\x80\x80", 4},
               {"\xf4\x8f\xbf\xbf", 4},
               {"\x80", 0},
               {"\xc1\xbf", 0},
               {"\xe0\x9f\xbf", 0},
               {"\xed\xa0\x80", 0},
               {"\xf0\x8f\xbf\xbf", 0},
               {"\xf4\x90\x80\x80", 0},
               {"\xf5\x80\x80\x80", 0},
               {"\xe2\x82", 0},
               {"\xe2\x82z", 0}};
  for (const auto& c : cases) {
    INFO(escape_controls(c.text));
    CHECK(utf8_length(c.text, 0) == c.length);
  }
  CHECK(utf8_length("aä", 1) == 2);
}

TEST_CASE("a NUL does not cut a message short", "[core]") {
  try {
    ESP_REQUIRE(false, FormatError, "tensor \"", "a\0b"s, "\": unknown");
  } catch (const FormatError& e) {
    CHECK(std::string(e.what()) == "tensor \"a\\x00b\": unknown");
  }
}
