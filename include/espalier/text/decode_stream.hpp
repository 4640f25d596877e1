// SPDX-License-Identifier: Apache-2.0
// Streaming decoder. Each push returns the text that is now certain, so a character whose bytes are
// spread over several tokens appears when it is complete. The pieces and finish() concatenate to
// decode() of all ids, with one exception: a returned character is not revoked if the next byte
// token makes the run of byte tokens ill-formed.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/decode_stream.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <espalier/text/tokenizer.hpp>

namespace espalier::text {

class DecodeStream {
 public:
  explicit DecodeStream(Tokenizer tokenizer, bool skip_special_tokens = true)
      : tokenizer_(std::move(tokenizer)), skip_special_tokens_(skip_special_tokens) {}

  /// Adds a token; returns the text that is now complete, empty for a part of a character.
  std::string push(std::int32_t id) {
    if (skip_special_tokens_ && tokenizer_.is_special(id)) return {};
    window_.push_back(id);
    const std::string text = decode(window_);
    const bool pending =
        text.size() >= kReplacement.size() &&
        text.compare(text.size() - kReplacement.size(), kReplacement.size(), kReplacement) == 0;
    // No character takes that many tokens: such a run is ill-formed and returned as it is.
    constexpr std::size_t kMaxPending = 32;
    if (pending && window_.size() - shown_ids_ < kMaxPending) return {};
    return emit(text);
  }

  /// Returns the remaining bytes of an incomplete character, as U+FFFD.
  std::string finish() {
    return window_.size() == shown_ids_ ? std::string() : emit(decode(window_));
  }

 private:
  std::string decode(std::span<const std::int32_t> ids) const {
    return tokenizer_.decode(ids, skip_special_tokens_);
  }

  /// The last returned tokens stay in the window, because decoders treat the first token of a text
  /// differently.
  std::string emit(const std::string& text) {
    const std::span<const std::int32_t> fresh = std::span(window_).subspan(shown_ids_);
    std::string out =
        text.compare(0, shown_.size(), shown_) == 0 ? text.substr(shown_.size()) : decode(fresh);
    window_.assign(fresh.begin(), fresh.end());
    shown_ids_ = window_.size();
    shown_ = decode(window_);
    return out;
  }

  Tokenizer tokenizer_;
  bool skip_special_tokens_;
  std::vector<std::int32_t> window_;  // the last returned tokens, then pending ones
  std::size_t shown_ids_ = 0;
  std::string shown_;  // text of the first shown_ids_ tokens of the window
};

}  // namespace espalier::text
