// SPDX-License-Identifier: Apache-2.0
// Pre-tokenizers of tokenizer.json: each splits or rewrites the pieces of a text further; the model
// then encodes one piece at a time. Behaviour as in Hugging Face's tokenizers.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/pre_tokenizer.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <espalier/text/byte_level.hpp>
#include <espalier/text/regex.hpp>
#include <espalier/text/unicode.hpp>

namespace espalier::text {

/// A text and its pieces, none of them empty.
struct Pieces {
  std::string text;
  std::vector<Span> spans;
  /// True if the first span begins at the user's text (for Metaspace's `first`).
  bool at_origin = false;

  std::string_view piece(const Span& s) const {
    return std::string_view(text).substr(s.begin, s.end - s.begin);
  }
  void add(std::size_t begin, std::size_t end) {
    if (begin < end) spans.push_back({begin, end});
  }
};

/// The treatment of matched text.
enum class Delimiter { removed, isolated, merged_with_previous, merged_with_next, contiguous };

namespace detail {

struct Part {
  Span span;
  bool is_match;
};

/// Turns parts, alternating between gaps and matches, into the pieces of `behavior`.
inline void cut(std::vector<Part> parts, Delimiter behavior, std::size_t offset,
                std::vector<Span>& out) {
  const auto emit = [&](const Span& s) {
    if (s.begin < s.end) out.push_back({offset + s.begin, offset + s.end});
  };
  if (behavior == Delimiter::isolated || behavior == Delimiter::removed) {
    for (const Part& p : parts) {
      if (!p.is_match || behavior == Delimiter::isolated) emit(p.span);
    }
    return;
  }
  const bool backwards = behavior == Delimiter::merged_with_next;
  if (backwards) std::reverse(parts.begin(), parts.end());
  std::vector<Span> joined;
  bool previous_match = false;
  for (const Part& p : parts) {
    const bool join = behavior == Delimiter::contiguous ? p.is_match == previous_match
                                                        : p.is_match && !previous_match;
    previous_match = p.is_match;
    if (!join || joined.empty()) {
      joined.push_back(p.span);
    } else if (backwards) {
      joined.back().begin = p.span.begin;
    } else {
      joined.back().end = p.span.end;
    }
  }
  if (backwards) std::reverse(joined.begin(), joined.end());
  for (const Span& s : joined) emit(s);
}

inline std::vector<Part> parts_between(const std::vector<Span>& matches, std::size_t size,
                                       bool invert) {
  std::vector<Part> parts;
  std::size_t at = 0;
  for (const Span& m : matches) {
    if (at != m.begin) parts.push_back({{at, m.begin}, invert});
    parts.push_back({m, !invert});
    at = m.end;
  }
  if (at != size) parts.push_back({{at, size}, invert});
  return parts;
}

}  // namespace detail

/// A literal text or a regular expression, as `Split` and `Replace` take them.
class Pattern {
 public:
  explicit Pattern(std::string literal) : literal_(std::move(literal)) {}
  explicit Pattern(Regex regex) : regex_(std::move(regex)) {}

  std::vector<Span> find_all(std::string_view text) const {
    if (regex_) return regex_->find_all(text);
    std::vector<Span> matches;
    for (std::size_t at = text.find(literal_); at != std::string_view::npos;
         at = text.find(literal_, at + literal_.size())) {
      matches.push_back({at, at + literal_.size()});
    }
    return matches;
  }

  std::string replace_all(std::string_view text, std::string_view by) const {
    std::string out;
    std::size_t at = 0;
    for (const Span& m : find_all(text)) {
      out.append(text.substr(at, m.begin - at)).append(by);
      at = m.end;
    }
    return out.append(text.substr(at));
  }

 private:
  std::string literal_;  // not empty where regex_ is not set
  std::optional<Regex> regex_;
};

/// GPT-2's words, spelled in the byte alphabet.
struct ByteLevelPreTokenizer {
  bool add_prefix_space = true;
  bool use_regex = true;

  void apply(Pieces& pieces) const {
    Pieces out;
    out.at_origin = pieces.at_origin;
    out.text.reserve(pieces.text.size() + pieces.text.size() / 4);
    const ByteAlphabet& alphabet = ByteAlphabet::instance();
    std::string prefixed;
    for (const Span& span : pieces.spans) {
      std::string_view s = pieces.piece(span);
      if (add_prefix_space && s[0] != ' ') {
        prefixed.assign(" ").append(s);
        s = prefixed;
      }
      for (std::size_t pos = 0; pos < s.size();) {
        const std::size_t end = use_regex ? gpt2_word_end(s, pos) : s.size();
        const std::size_t begin = out.text.size();
        alphabet.append_spelling(out.text, s.substr(pos, end - pos));
        out.add(begin, out.text.size());
        pos = end;
      }
    }
    pieces = std::move(out);
  }
};

/// Isolates numeric characters, one by one or in runs.
struct DigitsPreTokenizer {
  bool individual_digits = false;

  void apply(Pieces& pieces) const {
    std::vector<Span> spans;
    for (const Span& span : pieces.spans) {
      std::size_t begin = span.begin;
      bool in_number = false;
      for (std::size_t pos = span.begin; pos < span.end;) {
        const CodePoint c = decode_utf8(pieces.text, pos);
        const bool number = is_number(c.value);
        if (pos > begin && (number != in_number || (number && individual_digits))) {
          spans.push_back({begin, pos});
          begin = pos;
        }
        in_number = number;
        pos += c.size;
      }
      if (begin < span.end) spans.push_back({begin, span.end});
    }
    pieces.spans = std::move(spans);
  }
};

/// Replaces spaces by a visible character that begins words.
struct MetaspacePreTokenizer {
  enum class Prepend { first, always, never };

  std::string replacement = "\xE2\x96\x81";  // U+2581
  Prepend prepend = Prepend::always;
  bool split = true;

  void apply(Pieces& pieces) const {
    Pieces out;
    out.at_origin = pieces.at_origin;
    bool at_origin = pieces.at_origin;
    for (const Span& span : pieces.spans) {
      const std::string_view s = pieces.piece(span);
      const std::size_t begin = out.text.size();
      const bool wanted = prepend == Prepend::always || (prepend == Prepend::first && at_origin);
      if (wanted && s[0] != ' ' && s.substr(0, replacement.size()) != replacement) {
        out.text += replacement;
      }
      at_origin = false;
      for (const char c : s) {
        if (c == ' ') {
          out.text += replacement;
        } else {
          out.text.push_back(c);
        }
      }
      if (!split) {
        out.add(begin, out.text.size());
        continue;
      }
      const std::string_view written = std::string_view(out.text).substr(begin);
      const std::vector<Span> matches = Pattern(replacement).find_all(written);
      detail::cut(detail::parts_between(matches, written.size(), false),
                  Delimiter::merged_with_next, begin, out.spans);
    }
    pieces = std::move(out);
  }
};

/// Splits by a pattern.
struct SplitPreTokenizer {
  Pattern pattern;
  Delimiter behavior = Delimiter::isolated;
  bool invert = false;

  void apply(Pieces& pieces) const {
    std::vector<Span> spans;
    bool origin_kept = pieces.at_origin;
    for (const Span& span : pieces.spans) {
      const std::string_view s = pieces.piece(span);
      detail::cut(detail::parts_between(pattern.find_all(s), s.size(), invert), behavior,
                  span.begin, spans);
    }
    if (!pieces.spans.empty() &&
        (spans.empty() || spans.front().begin != pieces.spans.front().begin)) {
      origin_kept = false;
    }
    pieces.at_origin = origin_kept;
    pieces.spans = std::move(spans);
  }
};

using PreTokenizer = std::variant<ByteLevelPreTokenizer, DigitsPreTokenizer, MetaspacePreTokenizer,
                                  SplitPreTokenizer>;

}  // namespace espalier::text
