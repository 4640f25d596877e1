// SPDX-License-Identifier: Apache-2.0
// Lines of training and calibration data.
#include <espalier/data/dataset.hpp>
#include <espalier/text/byte_tokenizer.hpp>

#include "fuzz.hpp"

using namespace espalier;

ESP_FUZZ(text) {
  static const text::Tokenizer words(
      text::parse_tokenizer_json(io::dump(text::byte_tokenizer_json("<end>")), "tokenizer.json"));
  data::RecordEncoder encoder;
  encoder.encode = [](std::string_view s, bool special) { return words.encode(s, special); };
  encoder.eos = 0;
  const auto file = fuzz::file_of("train.jsonl", text);
  fuzz::accepts([&] { (void)data::read_dataset(file, encoder, 64).summary(); });
  encoder.render = [](const std::vector<text::Message>& messages) {
    return text::ChatTemplate::named("chatml").render_segments(messages);
  };
  fuzz::accepts([&] { (void)data::read_dataset(file, encoder, 64).summary(); });
}
