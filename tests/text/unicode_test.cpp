// SPDX-License-Identifier: Apache-2.0
#include <espalier/text/regex.hpp>
#include <espalier/text/unicode.hpp>

#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {
using namespace espalier;
using namespace espalier::text;
}  // namespace

TEST_CASE("unicode: every code point survives encoding and decoding, surrogates do not",
          "[text][unicode]") {
  int wrong = 0;
  for (char32_t c = 0; c < 0x110000; ++c) {
    std::string s;
    append_utf8(s, c);
    const CodePoint back = decode_utf8(s, 0);
    const bool surrogate = c >= 0xD800 && c < 0xE000;
    wrong +=
        surrogate ? back.size != 0 : back.value != c || back.size != static_cast<int>(s.size());
  }
  CHECK(wrong == 0);
}

TEST_CASE("unicode: ill-formed UTF-8 is found and replaced by maximal subparts",
          "[text][unicode]") {
  const std::string r(kReplacement);
  CHECK(find_invalid_utf8("abc\xC3\xA9") == std::string::npos);
  CHECK(find_invalid_utf8("ab\xE2\x82") == 2);
  // Table 3-8 of the Unicode standard, and its neighbours.
  CHECK(replace_invalid_utf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64") ==
        "a" + r + r + r + "b" + r + "c" + r + r + "d");
  CHECK(replace_invalid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") ==
        r + r + r + r + r + r + r + r + "A");
  CHECK(replace_invalid_utf8("\xED\xA0\x80\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42") ==
        r + r + r + r + r + r + r + r + "A" + r + r + "B");
}

TEST_CASE("unicode: white space of Unicode and of Python differ in four separators",
          "[text][unicode]") {
  std::vector<char32_t> unicode, python;
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (is_white_space(c)) unicode.push_back(c);
    if (is_space(c)) python.push_back(c);
  }
  CHECK(unicode == std::vector<char32_t>{9,      10,     11,     12,     13,     0x20,   0x85,
                                         0xA0,   0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004,
                                         0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200A, 0x2028,
                                         0x2029, 0x202F, 0x205F, 0x3000});
  CHECK(python.size() == unicode.size() + 4);
  CHECK((is_space(0x1C) && is_space(0x1F) && !is_white_space(0x1C) && !is_space(0x200B)));
}

TEST_CASE("unicode: word characters are Python's", "[text][unicode]") {
  for (const char32_t c : {U'a', U'Z', U'0', U'_', U'é', U'你', U'²', U'½', U'Ⅳ', U'ª', U'٣'}) {
    CAPTURE(static_cast<unsigned>(c));
    CHECK(is_word_char(c));
  }
  for (const char32_t c : {U' ', U'-', U'.', U'\u0301', U'\u200d', U'€', U'\u203f', U'🙂'}) {
    CAPTURE(static_cast<unsigned>(c));
    CHECK_FALSE(is_word_char(c));
  }
  CHECK((is_identifier_char(0x301) && is_identifier_char(0x203F) && !is_identifier_char(U'²')));
}

TEST_CASE("regex: \\s is White_Space, ^ means lines, empty matches do not follow a match",
          "[text][regex]") {
  const Regex space(R"(\s+)", "t");
  CHECK(space.find_all("a \t\xC2\xA0"
                       "b\xE1\xA0\x8E"
                       "c") == std::vector<Span>{{1, 5}});
  CHECK(Regex(R"([^\s]+)", "t").find_all("ab c") == std::vector<Span>{{0, 2}, {3, 4}});
  CHECK(Regex(R"(\S)", "t").find_all(" x ") == std::vector<Span>{{1, 2}});
  CHECK(Regex("^b", "t").find_all("a\nb") == std::vector<Span>{{2, 3}});
  CHECK(Regex("a*", "t").find_all("aab") == std::vector<Span>{{0, 2}, {3, 3}});
  CHECK_THROWS_AS(Regex("[", "t"), FormatError);
}
