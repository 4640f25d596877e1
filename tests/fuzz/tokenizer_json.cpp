// SPDX-License-Identifier: Apache-2.0
// tokenizer.json, and texts through what it describes.
#include <espalier/text/decode_stream.hpp>
#include <espalier/text/tokenizer.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  fuzz::accepts([&] {
    const text::Tokenizer tokenizer(text::parse_tokenizer_json(text, "tokenizer.json"));
    for (const char* s :
         {"It's the 12 \u4f60\u597d <s><x> \n the end ", "aa  bb e\u0301\u0316", ""}) {
      fuzz::accepts([&] {
        const auto ids = tokenizer.encode(s);
        (void)tokenizer.decode(ids);
        text::DecodeStream stream(tokenizer);
        for (const std::int32_t id : ids) (void)stream.push(id);
        (void)stream.finish();
      });
    }
    (void)tokenizer.decode(std::vector<std::int32_t>{-1, 0, 1, 5, 258, 1 << 30});
  });
}
