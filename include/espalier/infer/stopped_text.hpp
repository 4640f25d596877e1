// SPDX-License-Identifier: Apache-2.0
// The text of generated tokens, up to the first stop string.
#pragma once

#ifdef __CUDACC__
#error "espalier/infer/stopped_text.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include <espalier/core/inline.hpp>
#include <espalier/text/decode_stream.hpp>

namespace espalier::infer {

/// Streams tokens to text that ends before the first stop string. It starts with the prompt's last
/// tokens, because decoders treat the first token of a text differently. Empty stop strings are
/// ignored; `stop` must outlive the object.
class StoppedText {
 public:
  StoppedText(const text::Tokenizer& tokenizer, std::span<const std::int32_t> prompt,
              std::span<const std::string> stop)
      : stream_(tokenizer), stop_(stop) {
    constexpr std::size_t kBefore = 6;
    for (const std::int32_t id : prompt.last(std::min(prompt.size(), kBefore))) {
      (void)stream_.push(id);
    }
  }

  /// True once a stop string has ended the text.
  bool push(std::int32_t id) { return extend(stream_.push(id)); }
  /// Flushes the text after the last token.
  void finish() {
    extend(stream_.finish());
    finished_ = true;
  }
  std::string& text() { return text_; }

  /// What may be shown and was not returned before: all but an end that may become a stop string.
  /// After finish(), or once a stop string was found, all that is left.
  [[nodiscard]] ESP_INLINE std::string take_settled() {
    const std::size_t end = text_.size() - (stopped_ || finished_ ? 0 : held());
    const std::size_t begin = std::min(taken_, end);
    taken_ = end;
    return text_.substr(begin, end - begin);
  }

 private:
  ESP_INLINE bool extend(const std::string& more) {
    if (stopped_) return true;
    const std::size_t before = text_.size();
    text_ += more;
    std::size_t first = text_.npos;
    for (const std::string& s : stop_) {
      if (s.empty()) continue;
      first = std::min(first, text_.find(s, before < s.size() ? 0 : before - s.size() + 1));
    }
    if (first == text_.npos) return false;
    text_.resize(first);
    return stopped_ = true;
  }

  /// Bytes at the end of the text that begin a stop string.
  ESP_INLINE std::size_t held() const {
    std::size_t held = 0;
    for (const std::string& s : stop_) {
      for (std::size_t n = std::min(s.size(), text_.size() + 1); n-- > held + 1;) {
        if (text_.ends_with(std::string_view(s).substr(0, n))) held = n;
      }
    }
    return held;
  }

  text::DecodeStream stream_;
  std::span<const std::string> stop_;
  std::string text_;
  std::size_t taken_ = 0;
  bool stopped_ = false, finished_ = false;
};

}  // namespace espalier::infer
