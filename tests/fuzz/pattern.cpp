// SPDX-License-Identifier: Apache-2.0
// Patterns of pre-tokenizers: the matches lie in the text, in order.
#include <espalier/text/regex.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  static const std::string texts[] = {"It's the 12 \u4f60\u597d e\u0301 <s>\n\n  end \u2028",
                                      std::string(2000, 'a'), std::string(2000, ' ') + "x",
                                      "ab ab ab ab ab ab ab ab ab ab ab ab ab ab ab ab ab!"};
  fuzz::accepts([&] {
    const text::Regex regex(text, "tokenizer.json");
    for (const std::string& s : texts) {
      fuzz::accepts([&] {
        std::size_t at = 0;
        for (const text::Span& m : regex.find_all(s)) {
          fuzz::require(at <= m.begin && m.begin <= m.end && m.end <= s.size());
          at = m.end;
        }
      });
    }
  });
}
