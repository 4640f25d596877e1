// SPDX-License-Identifier: Apache-2.0
// Patterns of tokenizer.json are written for Oniguruma. The pattern is translated to PCRE2's syntax
// where the two differ (white space, scripts), and what is not known to mean the same is refused by
// name: `[a-z&&[^t]]`, `\h` or `\w` would compile, and give a model other tokens.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/regex_syntax.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>

namespace espalier::text {

namespace detail {

class OnigurumaTranslator {
 public:
  OnigurumaTranslator(std::string_view pattern, const std::string& where)
      : p_(pattern), where_(where) {}

  std::string translate() {
    while (i_ < p_.size()) {
      const char c = p_[i_];
      if (c == '\\') {
        escape(false);
      } else if (c == '[') {
        char_class();
      } else if (c == '(') {
        group();
      } else if (c == '{') {
        interval();
      } else {
        out_ += p_[i_++];
      }
    }
    return std::move(out_);
  }

 private:
  // Unicode's White_Space and what remains; PCRE2's own \s also has U+180E.
  static constexpr std::string_view kSpaces =
      R"(\t-\r \x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F}\x{3000})";
  static constexpr std::string_view kOthers =
      R"(\x{0}-\x{8}\x{E}-\x{1F}!-\x{84}\x{86}-\x{9F}\x{A1}-\x{167F}\x{1681}-\x{1FFF})"
      R"(\x{200B}-\x{2027}\x{202A}-\x{202E}\x{2030}-\x{205E}\x{2060}-\x{2FFF}\x{3001}-\x{10FFFF})";

  /// @param bytes of the pattern from i_ on that are at fault
  [[noreturn]] void refuse(std::size_t bytes) const {
    throw FormatError(espalier::detail::concat(
        {where_, " has '", p_.substr(i_, bytes), "' at byte ", i_,
         ", which is not supported: Oniguruma, for which it is written, and PCRE2 differ there"}));
  }
  bool starts(std::string_view with, std::size_t at) const {
    return p_.substr(std::min(at, p_.size()), with.size()) == with;
  }
  void copy(std::size_t bytes) {
    out_ += p_.substr(i_, bytes);
    i_ += bytes;
  }
  void escape(bool in_class) {
    const char kind = i_ + 1 < p_.size() ? p_[i_ + 1] : '\0';
    const bool alphanumeric = (kind >= 'a' && kind <= 'z') || (kind >= 'A' && kind <= 'Z') ||
                              (kind >= '0' && kind <= '9');
    if (!alphanumeric || std::string_view("tnrfaedD").find(kind) != std::string_view::npos) {
      copy(std::min<std::size_t>(2, p_.size() - i_));
    } else if (kind == 's' || kind == 'S') {
      const std::string_view content = kind == 's' ? kSpaces : kOthers;
      out_.append(in_class ? "" : "[").append(content).append(in_class ? "" : "]");
      i_ += 2;
    } else if (kind == 'p' || kind == 'P') {
      property();
    } else if (kind == 'x') {
      code_point();
    } else if (!in_class && (kind == 'A' || kind == 'z' || kind == 'Z')) {
      copy(2);
    } else {
      refuse(2);
    }
  }

  /// \p{L}, \p{^Lu}, \P{Han}: a general category, or else a script.
  void property() {
    const std::size_t end = p_.find('}', i_);
    if (!starts("{", i_ + 2) || end == std::string_view::npos) refuse(2);
    std::string_view name = p_.substr(i_ + 3, end - i_ - 3);
    const bool negated = !name.empty() && name[0] == '^';
    if (negated) name.remove_prefix(1);
    if (name.empty() || name.find_first_of(":=^") != std::string_view::npos) refuse(end + 1 - i_);
    // By itself a script's name is PCRE2's script extensions, and Oniguruma's script.
    const bool category = name.size() <= 2;
    out_.append(p_.substr(i_, 2)).append(negated ? "{^" : "{").append(category ? "" : "sc:");
    out_.append(name).append("}");
    i_ = end + 1;
  }

  /// \x{20AC}, or \x41: beyond ASCII, two digits are a byte to Oniguruma.
  void code_point() {
    const bool braces = starts("{", i_ + 2);
    const std::size_t end = p_.find('}', i_);
    if (braces && end != std::string_view::npos) {
      copy(end + 1 - i_);
      return;
    }
    const std::string_view digits = p_.substr(std::min(i_ + 2, p_.size()), 2);
    const bool ascii =
        digits.size() == 2 && digits[0] >= '0' && digits[0] <= '7' &&
        std::string_view("0123456789abcdefABCDEF").find(digits[1]) != std::string_view::npos;
    if (!ascii) refuse(4);
    copy(4);
  }

  void char_class() {
    const std::size_t opened = i_;
    copy(starts("^", i_ + 1) ? 2 : 1);
    if (starts("]", i_)) refuse(1);
    const std::size_t first = i_;
    while (i_ < p_.size() && p_[i_] != ']') {
      if (p_[i_] == '[' || starts("&&", i_)) refuse(p_[i_] == '[' ? 1 : 2);
      if (p_[i_] != '\\') {
        copy(1);
        continue;
      }
      const char kind = i_ + 1 < p_.size() ? p_[i_ + 1] : '\0';
      const bool is_set = std::string_view("sSdDpP").find(kind) != std::string_view::npos;
      // A set is no end of a range.
      if (is_set && i_ > first && p_[i_ - 1] == '-') refuse(2);
      escape(true);
      if (is_set && starts("-", i_) && !starts("]", i_ + 1)) refuse(1);
    }
    if (i_ == p_.size()) {
      i_ = opened;
      throw FormatError(where_ + " does not compile: a [ is not closed");
    }
    copy(1);
  }

  void group() {
    if (starts("(*", i_)) refuse(2);
    if (!starts("(?", i_)) {
      copy(1);
      return;
    }
    // (?i) stands for the rest of the pattern; elsewhere the two nest it differently.
    for (const std::string_view known :
         {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!", "(?i:", "(?-i:", "(?i)"}) {
      if (starts(known, i_) && (known != "(?i)" || i_ == 0)) {
        copy(known.size());
        return;
      }
    }
    refuse(3);
  }

  /// {n}, {n,}, {n,m}; anything else is literal in both, but for {,m}.
  void interval() {
    std::size_t at = i_ + 1;
    const auto digits = [&] {
      const std::size_t begin = at;
      while (at < p_.size() && p_[at] >= '0' && p_[at] <= '9') ++at;
      return at > begin;
    };
    const bool low = digits();
    const bool comma = starts(",", at);
    if (comma) ++at;
    const bool high = comma && digits();
    if (!starts("}", at) || !(low || high)) {
      copy(1);
      return;
    }
    const std::size_t bytes = at + 1 - i_;
    const bool differs = !low || starts("+", at + 1) || (!comma && starts("?", at + 1));
    if (differs) refuse(bytes + (low ? 1 : 0));
    copy(bytes);
  }

  std::string_view p_;
  const std::string& where_;
  std::size_t i_ = 0;
  std::string out_;
};

}  // namespace detail

/// @param where names the pattern in messages
/// @throws FormatError naming the construct that is not supported
[[nodiscard]] ESP_INLINE std::string translate_oniguruma(std::string_view pattern,
                                                         const std::string& where) {
  return detail::OnigurumaTranslator(pattern, where).translate();
}

}  // namespace espalier::text
