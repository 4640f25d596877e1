// SPDX-License-Identifier: Apache-2.0
// Tokenizes texts with a training mask. A text of trained and untrained segments is tokenized as a
// whole, so its ids are those of inference. A token across a boundary counts as trained.
#pragma once

#ifdef __CUDACC__
#error "espalier/data/examples.hpp is host-only; include it from a .cpp"
#endif

#include <string>
#include <string_view>
#include <vector>

#include <espalier/data/batches.hpp>
#include <espalier/text/chat_template.hpp>
#include <espalier/text/encode.hpp>

namespace espalier::data {

using text::Encode;

/// The whole text, trained on from the second token. Appends `eos` unless the text ends with it
/// (-1: none).
[[nodiscard]] inline Example example_of_text(const Encode& encode, std::string_view text,
                                             std::int32_t eos) {
  Example e;
  e.ids = encode(text, true);
  if (eos >= 0 && (e.ids.empty() || e.ids.back() != eos)) e.ids.push_back(eos);
  e.is_target.assign(e.ids.size(), 1);
  if (!e.is_target.empty()) e.is_target[0] = 0;
  return e;
}

/// Counts the leading tokens of `whole` that belong to the text before byte `end`. If the boundary
/// is inside a token, ids differ: the count stops before that token, and `inside_token` is set.
struct TokensBefore {
  std::size_t count = 0;
  bool inside_token = false;
};
[[nodiscard]] inline TokensBefore tokens_before(const Encode& encode, std::string_view text,
                                                std::size_t end, bool add_special,
                                                const std::vector<std::int32_t>& whole) {
  if (end == text.size()) return {whole.size(), false};
  std::vector<std::int32_t> part;
  if (end > 0 || add_special) part = encode(text.substr(0, end), add_special);
  std::size_t n = 0;
  while (n < part.size() && n < whole.size() && part[n] == whole[n]) ++n;
  return {n, n < part.size()};
}

/// `add_special`: adds the tokenizer's special tokens; false with a chat template, which has
/// written them into the text. Appends `eos` to a trained end unless the text ends with it.
[[nodiscard]] inline Example example_of_segments(const Encode& encode,
                                                 const std::vector<text::TextSegment>& segments,
                                                 bool add_special, std::int32_t eos) {
  std::string joined;
  for (const text::TextSegment& s : segments) joined += s.text;
  Example e;
  e.ids = encode(joined, add_special);
  e.is_target.assign(e.ids.size(), 0);
  std::size_t begin_byte = 0;
  for (std::size_t s = 0; s < segments.size();) {
    std::size_t last = s, end_byte = begin_byte;
    while (last < segments.size() && segments[last].is_completion == segments[s].is_completion) {
      end_byte += segments[last++].text.size();
    }
    if (segments[s].is_completion && end_byte > begin_byte) {
      const TokensBefore begin = tokens_before(encode, joined, begin_byte, add_special, e.ids);
      const TokensBefore end = tokens_before(encode, joined, end_byte, add_special, e.ids);
      const std::size_t stop = std::min(e.ids.size(), end.count + (end.inside_token ? 1 : 0));
      for (std::size_t i = begin.count; i < stop; ++i) e.is_target[i] = 1;
    }
    begin_byte = end_byte;
    s = last;
  }
  if (eos >= 0 && !segments.empty() && segments.back().is_completion &&
      (e.ids.empty() || e.ids.back() != eos)) {
    e.ids.push_back(eos);
    e.is_target.push_back(1);
  }
  if (!e.is_target.empty()) e.is_target[0] = 0;
  return e;
}

/// Truncates to `max_length` tokens. Returns true if any were cut.
inline bool cut_right(Example& e, std::int64_t max_length) {
  if (static_cast<std::int64_t>(e.ids.size()) <= max_length) return false;
  e.ids.resize(static_cast<std::size_t>(max_length));
  e.is_target.resize(static_cast<std::size_t>(max_length));
  return true;
}

}  // namespace espalier::data
