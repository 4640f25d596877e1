// SPDX-License-Identifier: Apache-2.0
// Tokenizes a context and its continuation as lm-evaluation-harness does: trailing white space of
// the context moves to the continuation, both are tokenized as one text, and the continuation
// begins after as many tokens as the context alone has.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/encode_pair.hpp is host-only; include it from a .cpp"
#endif

#include <string>
#include <string_view>

#include <espalier/core/error.hpp>
#include <espalier/infer/language_model.hpp>
#include <espalier/text/encode.hpp>
#include <espalier/text/unicode.hpp>

namespace espalier::eval {

using text::Encode;

/// Length in bytes of `text` without trailing white space, by the rule of Python's rstrip().
[[nodiscard]] inline std::size_t stripped_size(std::string_view text) {
  std::size_t end = text.size();
  while (end > 0) {
    std::size_t begin = end - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xc0) == 0x80) --begin;
    const text::CodePoint c = text::decode_utf8(text, begin);
    if (c.size == 0 || !text::is_space(c.value)) break;
    end = begin;
  }
  return end;
}

namespace detail {
/// As `encode`, but a text that begins with BOS itself, as a rendered chat does, gets no second
/// one.
inline std::vector<std::int32_t> encode_with_one_start(const Encode& encode, std::int32_t start,
                                                       std::string_view text) {
  std::vector<std::int32_t> ids = encode(text, true);
  if (ids.size() < 2 || ids[0] != start || ids[1] != start) return ids;
  std::vector<std::int32_t> without = encode(text, false);
  return without.size() + 1 == ids.size() ? without : ids;
}
}  // namespace detail

/// Where a token spans the join, so that the whole has no more tokens than the context, the
/// continuation is tokenised alone.
/// @param start the token that stands for an empty context: BOS, or else EOS
[[nodiscard]] inline infer::Continuation encode_pair(const Encode& encode, std::int32_t start,
                                                     const std::string& context,
                                                     const std::string& continuation) {
  infer::Continuation pair;
  if (context.empty()) {
    ESP_REQUIRE(start >= 0, FormatError,
                "an empty context stands for BOS, but the tokenizer has neither BOS nor EOS");
    pair.context = {start};
    pair.continuation = encode(continuation, false);
    if (!pair.continuation.empty() && pair.continuation[0] == start) {
      pair.continuation.erase(pair.continuation.begin());
    }
    return pair;
  }
  const std::string_view head(context.data(), stripped_size(context));
  pair.context = detail::encode_with_one_start(encode, start, head);
  const std::vector<std::int32_t> whole =
      detail::encode_with_one_start(encode, start, context + continuation);
  if (pair.context.size() < whole.size()) {
    pair.continuation.assign(whole.begin() + static_cast<std::ptrdiff_t>(pair.context.size()),
                             whole.end());
  } else {
    pair.continuation = encode(continuation, false);
  }
  if (pair.context.empty()) {  // nothing but white space, and the tokenizer adds no BOS
    ESP_REQUIRE(start >= 0, FormatError,
                "a context of white space stands for BOS, but the tokenizer has neither BOS nor "
                "EOS");
    pair.context = {start};
  }
  return pair;
}

/// Cuts the context on the left to what the model takes: `max_length` tokens of input, plus the
/// last target, which is not an input. Returns whether there was anything to cut.
/// @throws FormatError if the continuation alone is longer
inline bool cut_left(infer::Continuation& pair, std::int64_t max_length) {
  const auto most = static_cast<std::size_t>(max_length);
  ESP_REQUIRE(pair.continuation.size() <= most, FormatError, "the continuation has ",
              pair.continuation.size(), " tokens, the model takes ", most);
  const std::size_t whole = pair.context.size() + pair.continuation.size();
  if (whole <= most + 1) return false;
  pair.context.erase(pair.context.begin(),
                     pair.context.begin() + static_cast<std::ptrdiff_t>(whole - most - 1));
  return true;
}

}  // namespace espalier::eval
