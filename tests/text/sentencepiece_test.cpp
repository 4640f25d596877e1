// SPDX-License-Identifier: Apache-2.0
#include <espalier/text/sentencepiece.hpp>
#include <espalier/text/tokenizer.hpp>

#include <bit>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

using namespace espalier;
using Catch::Matchers::Contains;
using Ids = std::vector<std::int32_t>;

std::string field(int number, const std::string& body) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(body.size())} + body;
}

std::string piece(const std::string& text, float score, int type) {
  const auto bits = std::bit_cast<std::uint32_t>(score);
  std::string body = field(1, text) + '\x15';
  for (int i = 0; i < 4; ++i) body += static_cast<char>(bits >> (8 * i));
  body += std::string{'\x18', static_cast<char>(type)};
  return field(1, body);
}

constexpr const char* kBpeWithFallback = "\x18\x02\x98\x02\x01";
const std::string kIdentity("\x20\x00", 2);  // remove_extra_whitespaces: false

std::string small_model(const std::string& extra = "",
                        const std::string& trainer = kBpeWithFallback,
                        const std::string& normalizer = kIdentity) {
  return piece("<unk>", 0, 2) + piece("<s>", 0, 3) + piece("</s>", 0, 3) + piece("<0x21>", 0, 6) +
         piece("ab", -1, 1) + piece("\u2581a", -2, 1) + piece("abb", -3, 1) +
         piece("\u2581", -4, 1) + piece("a", -5, 1) + piece("b", -6, 1) + piece("[X]", 0, 4) +
         extra + field(2, trainer) + field(3, normalizer);
}

text::Tokenizer parse(const std::string& bytes, bool bos = true, bool eos = false) {
  return text::Tokenizer(text::parse_sentencepiece(bytes, "m.model", bos, eos));
}

}  // namespace

TEST_CASE("sentencepiece: pieces merge by falling score", "[text][sentencepiece]") {
  const text::Tokenizer t = parse(small_model());
  CHECK(t.encode("abb") == Ids{1, 7, 6});
  CHECK(t.encode("a b") == Ids{1, 5, 7, 9});
  CHECK(t.encode("") == Ids{1});
  CHECK(t.encode("!?") == Ids{1, 7, 3, 0});  // a byte piece, then a byte that has none
  CHECK(t.encode("a[X]b") == Ids{1, 5, 10, 7, 9});
  CHECK(parse(small_model(), false, true).encode("</s>") == Ids{2, 2});
  CHECK(t.decode(Ids{1, 7, 6, 7, 9, 3}) == "abb b!");
}

TEST_CASE("sentencepiece: other kinds of model are refused", "[text][sentencepiece]") {
  CHECK_THROWS_WITH(parse(small_model("", "\x18\x01")), Contains("model type 1, only BPE"));
  CHECK_THROWS_WITH(parse(small_model("", kBpeWithFallback, "")), Contains("rewrites text"));
  CHECK_THROWS_WITH(parse(small_model("", kBpeWithFallback, "\x12\x01x\x20")),
                    Contains("past the"));
  CHECK_THROWS_WITH(parse(small_model(piece("u", 0, 5))), Contains("piece 11 ('u') is of type 5"));
  CHECK_THROWS_WITH(parse(small_model(piece("a", 0, 1))), Contains("appears twice"));
  CHECK_THROWS_WITH(parse(small_model(piece("\xFF", 0, 1))), Contains("not valid UTF-8"));
  CHECK_THROWS_WITH(parse(""), Contains("no pieces"));
}

TEST_CASE("sentencepiece: a file cut anywhere is refused or whole", "[text][sentencepiece]") {
  const std::string whole = small_model();
  int refused = 0;
  for (std::size_t n = 0; n < whole.size(); ++n) {
    try {
      parse(whole.substr(0, n));
    } catch (const FormatError&) {
      ++refused;
    }
  }
  CHECK(refused == static_cast<int>(whole.size()));
}
