// SPDX-License-Identifier: Apache-2.0
// The byte tokenizer gives every byte its number plus one, and gives the bytes back.
#include <espalier/io/file.hpp>
#include <espalier/text/byte_tokenizer.hpp>
#include <espalier/text/tokenizer.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;

TEST_CASE("A byte tokenizer has a token per byte and one for the end", "[text]") {
  const test::TemporaryFolder folder;
  io::write_text(folder / "tokenizer.json", io::dump(text::byte_tokenizer_json("<end>")));
  const text::Tokenizer tokenizer = text::Tokenizer::load(folder.path());
  std::string bytes;
  std::vector<std::int32_t> expected;
  for (int b = 1; b < 128; ++b) {
    bytes += static_cast<char>(b);
    expected.push_back(b + 1);
  }
  bytes += "\xc3\xa4";  // ä
  expected.insert(expected.end(), {0xc3 + 1, 0xa4 + 1});
  CHECK(tokenizer.encode(bytes, false) == expected);
  CHECK(tokenizer.decode(expected) == bytes);
  CHECK(tokenizer.encode("a<end>", false) == std::vector<std::int32_t>{'a' + 1, 0});
}
