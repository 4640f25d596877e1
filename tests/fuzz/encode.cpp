// SPDX-License-Identifier: Apache-2.0
// Any bytes through the tokenizers of tests/golden: byte-level ones give them back, and a stream of
// tokens reads as the whole does.
#include <espalier/text/decode_stream.hpp>
#include <espalier/text/tokenizer.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  static const std::filesystem::path folder =
      std::filesystem::path(ESPALIER_TESTS_DIR) / "golden" / "tokenizer";
  static const text::Tokenizer byte_level = text::Tokenizer::load(folder / "byte_level.json");
  static const text::Tokenizer fallback = text::Tokenizer::load(folder / "byte_fallback.json");
  const std::string normalized = fuzz::accepts([&] { (void)byte_level.encode(text); })
                                     ? text::UnicodeNormalizer{true, true}.apply(text)
                                     : std::string();
  fuzz::require(normalized.empty() || text::find_invalid_utf8(normalized) == std::string::npos);
  fuzz::accepts([&] {
    const auto ids = byte_level.encode(text);
    const std::string whole = byte_level.decode(ids, false);
    fuzz::require(whole == text);
    text::DecodeStream stream(byte_level, false);
    std::string pieces;
    for (const std::int32_t id : ids) pieces += stream.push(id);
    fuzz::require(pieces + stream.finish() == whole);
  });
  fuzz::accepts([&] { (void)fallback.decode(fallback.encode(text)); });
}
