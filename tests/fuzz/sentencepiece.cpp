// SPDX-License-Identifier: Apache-2.0
// SentencePiece's tokenizer.model (protobuf), and a text through it.
#include <espalier/text/tokenizer.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  fuzz::accepts([&] {
    const text::Tokenizer tokenizer(text::parse_sentencepiece(text, "tokenizer.model", true, true));
    (void)tokenizer.decode(tokenizer.encode("It's the 12 \u4f60\u597d <s> \n the end "));
    (void)tokenizer.decode(std::vector<std::int32_t>{-1, 0, 1, 5, 258, 1 << 30});
  });
}
