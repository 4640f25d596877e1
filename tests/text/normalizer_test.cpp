// SPDX-License-Identifier: Apache-2.0
// Normal forms against utf8proc's own, which orders marks in another way.
#include <espalier/text/normalizer.hpp>

#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"

using namespace espalier::text;

namespace {

std::string by_utf8proc(const std::string& s, bool compose, bool compatibility) {
  const auto options = static_cast<utf8proc_option_t>(
      UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) |
      (compatibility ? UTF8PROC_COMPAT : 0));
  utf8proc_uint8_t* raw = nullptr;
  const utf8proc_ssize_t n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(s.data()),
                                          static_cast<utf8proc_ssize_t>(s.size()), &raw, options);
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(raw, std::free);
  if (n < 0) FAIL(utf8proc_errmsg(n));
  return {reinterpret_cast<const char*>(raw), static_cast<std::size_t>(n)};
}

void require_equal(const std::string& s) {
  for (const bool compose : {true, false}) {
    for (const bool compatibility : {true, false}) {
      const std::string got = UnicodeNormalizer{compose, compatibility}.apply(s);
      const std::string want = by_utf8proc(s, compose, compatibility);
      if (got == want) continue;
      CAPTURE(s, compose, compatibility);
      REQUIRE(got == want);
    }
  }
}

}  // namespace

TEST_CASE("normalizer: every code point has utf8proc's normal forms", "[text]") {
  std::string s;
  for (char32_t c = 1; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    append_utf8(s, c);
    s += c % 2 == 0 ? "\u0301\u0316a" : "";
    if (c % 256 != 255) continue;
    require_equal(s);
    s.clear();
  }
  CHECK(UnicodeNormalizer{}.apply("") == "");
}

TEST_CASE("normalizer: random texts, Hangul and long runs of marks have utf8proc's normal forms",
          "[text]") {
  std::vector<char32_t> marks;
  for (char32_t c = 0x300; c < 0x20000; ++c) {
    if (utf8proc_get_property(static_cast<utf8proc_int32_t>(c))->combining_class != 0) {
      marks.push_back(c);
    }
  }
  REQUIRE(marks.size() > 500);
  std::mt19937 rng(1);
  for (int i = 0; i < 3000; ++i) {
    std::string s;
    const std::size_t length = i % 50 == 0 ? 400 : 1 + rng() % 30;
    for (std::size_t k = 0; k < length; ++k) {
      const unsigned kind = rng() % 10;
      if (kind < 6) {
        append_utf8(s, marks[rng() % marks.size()]);
      } else if (kind == 6) {
        append_utf8(s, static_cast<char32_t>(0xAC00 + rng() % 11172));
      } else if (kind == 7) {
        append_utf8(s, static_cast<char32_t>(0x1100 + rng() % 0x100));
      } else if (kind == 8) {
        append_utf8(s, static_cast<char32_t>('a' + rng() % 26));
      } else {
        append_utf8(s, static_cast<char32_t>(0xA0 + rng() % 0x600));
      }
    }
    require_equal(s);
  }
  SUCCEED();
}
