// SPDX-License-Identifier: Apache-2.0
// Decoders of tokenizer.json: they turn token texts into text parts, whose concatenation is the
// text. Behaviour as in Hugging Face's tokenizers, ill-formed UTF-8 included.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/decoder.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <espalier/text/byte_level.hpp>
#include <espalier/text/pre_tokenizer.hpp>
#include <espalier/text/unicode.hpp>

namespace espalier::text {

using Parts = std::vector<std::string>;

namespace detail {

inline std::string join(const Parts& parts) {
  std::string out;
  for (const std::string& p : parts) out += p;
  return out;
}

/// The byte of a token such as <0x0A>, or -1.
inline int fallback_byte(std::string_view token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

}  // namespace detail

struct ByteLevelDecoder {
  Parts apply(const Parts& parts) const {
    std::string bytes;
    for (const std::string& p : parts) ByteAlphabet::instance().append_bytes(bytes, p);
    return {replace_invalid_utf8(bytes)};
  }
};

struct ReplaceDecoder {
  Pattern pattern;
  std::string content;
  Parts apply(Parts parts) const {
    for (std::string& p : parts) p = pattern.replace_all(p, content);
    return parts;
  }
};

/// Runs of byte tokens become text; a run that is not UTF-8 becomes one U+FFFD per byte.
struct ByteFallbackDecoder {
  Parts apply(Parts parts) const {
    Parts out;
    std::string run;
    const auto flush = [&] {
      if (run.empty()) return;
      if (find_invalid_utf8(run) == std::string_view::npos) {
        out.push_back(run);
      } else {
        out.insert(out.end(), run.size(), std::string(kReplacement));
      }
      run.clear();
    };
    for (std::string& p : parts) {
      const int byte = detail::fallback_byte(p);
      if (byte >= 0) {
        run.push_back(static_cast<char>(byte));
        continue;
      }
      flush();
      out.push_back(std::move(p));
    }
    flush();
    return out;
  }
};

struct FuseDecoder {
  Parts apply(const Parts& parts) const { return {detail::join(parts)}; }
};

/// Strips up to `start` and `stop` copies of a character from the ends of every part.
struct StripDecoder {
  std::string content = " ";
  std::size_t start = 0, stop = 0;
  Parts apply(Parts parts) const {
    for (std::string& p : parts) {
      std::size_t begin = 0, end = p.size();
      for (std::size_t i = 0; i < start && p.compare(begin, content.size(), content) == 0; ++i) {
        begin += content.size();
      }
      for (std::size_t i = 0; i < stop && end >= begin + content.size() &&
                              p.compare(end - content.size(), content.size(), content) == 0;
           ++i) {
        end -= content.size();
      }
      p = p.substr(begin, end - begin);
    }
    return parts;
  }
};

struct MetaspaceDecoder {
  std::string replacement = "\xE2\x96\x81";
  bool strip_first = true;
  Parts apply(Parts parts) const {
    const Pattern pattern(replacement);
    for (std::size_t i = 0; i < parts.size(); ++i) {
      parts[i] = pattern.replace_all(parts[i], i == 0 && strip_first ? "" : " ");
    }
    return parts;
  }
};

using Decoder = std::variant<ByteLevelDecoder, ReplaceDecoder, ByteFallbackDecoder, FuseDecoder,
                             StripDecoder, MetaspaceDecoder>;

}  // namespace espalier::text
