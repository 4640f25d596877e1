// SPDX-License-Identifier: Apache-2.0
// A regular expression of a file, compiled by PCRE2 and matched with bounded work. A search counts
// PCRE2's steps (its match limit): at most kQuickSteps at a place of the text on the just-in-time
// path, whose stack grows from 32 KiB to 8 MiB. A place that needs more is searched again by the
// interpreter, which has no stack to overflow, and draws on one allowance for the whole text. The
// bound depends on the text's length alone, so that a result never depends on the machine.
#pragma once

#ifdef __CUDACC__
#error "espalier/io/regex.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;

namespace espalier::io {

enum class RegexKind {
  unicode_lines,  // UTF-8, Unicode classes, ^ and $ match at lines
  whole_bytes,    // bytes; a match begins at the text's begin and ends at its end
  python,         // UTF-8, Unicode classes; `re` of a str: ^ and $ as there, \uXXXX, groups
};

class Regex {
 public:
  /// @param where names the pattern in messages: "tokenizer.json: at ...: pattern 'a+'"
  /// @throws FormatError if PCRE2 does not accept the pattern
  Regex(std::string_view pattern, RegexKind kind, std::string where);

  RegexKind kind() const { return kind_; }
  const std::string& where() const { return where_; }

 private:
  friend class RegexSearch;
  RegexKind kind_;
  std::string where_;
  std::shared_ptr<pcre2_real_code_8> code_;
};

/// Searches one text. Pattern and text must outlive it; all kinds but `whole_bytes` need valid
/// UTF-8.
class RegexSearch {
 public:
  static constexpr std::uint32_t kQuickSteps = 1 << 12;

  RegexSearch(const Regex& regex, std::string_view text);

  /// Finds the first match that begins at byte `from` or later: true sets begin() and end().
  /// @param empty_there may a match at `from` be empty?
  /// @throws FormatError if the pattern needs more steps than the text's length allows
  bool find(std::size_t from, bool empty_there = true);
  std::size_t begin() const { return begin_; }
  std::size_t end() const { return end_; }
  /// Text of each group of the last match, in the pattern's order; empty where a group took no
  /// part. Of kind `python` only.
  std::vector<std::string_view> groups() const;

 private:
  int run(std::size_t from, std::uint32_t options, std::uint64_t steps);
  int search_here(std::size_t at, std::uint32_t options);

  const Regex& regex_;
  std::string_view text_;
  std::uint64_t allowance_;
  std::size_t begin_ = 0, end_ = 0;
  std::shared_ptr<pcre2_real_match_data_8> data_;
};

}  // namespace espalier::io

#ifdef ESP_BODIES
#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

namespace espalier::io {

namespace detail {

inline std::string pcre2_message(int code) {
  PCRE2_UCHAR buffer[160] = {};
  pcre2_get_error_message(code, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

/// Limits and stack of a thread's matches.
class RegexThread {
 public:
  RegexThread()
      : context_(pcre2_match_context_create(nullptr), pcre2_match_context_free),
        stack_(pcre2_jit_stack_create(32 << 10, 8 << 20, nullptr), pcre2_jit_stack_free) {
    ESP_REQUIRE(context_, Error, "out of memory in PCRE2");
    // Without a stack of its own PCRE2 uses 32 KiB, and the interpreter beyond that.
    if (stack_) pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
    pcre2_set_heap_limit(context_.get(), 1 << 20);  // KiB
  }
  pcre2_match_context* limited_to(std::uint64_t steps) {
    pcre2_set_match_limit(context_.get(), static_cast<std::uint32_t>(steps));
    return context_.get();
  }

 private:
  std::unique_ptr<pcre2_match_context, void (*)(pcre2_match_context*)> context_;
  std::unique_ptr<pcre2_jit_stack, void (*)(pcre2_jit_stack*)> stack_;
};

}  // namespace detail

ESP_INLINE Regex::Regex(std::string_view pattern, RegexKind kind, std::string where)
    : kind_(kind), where_(std::move(where)) {
  const std::unique_ptr<pcre2_compile_context, void (*)(pcre2_compile_context*)> context(
      pcre2_compile_context_create(nullptr), pcre2_compile_context_free);
  ESP_REQUIRE(context, Error, where_, ": out of memory in PCRE2");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_parens_nest_limit(context.get(), 200);
  std::uint32_t options = PCRE2_ANCHORED | PCRE2_ENDANCHORED;
  if (kind == RegexKind::unicode_lines) options = PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE;
  if (kind == RegexKind::python) options = PCRE2_UTF | PCRE2_UCP | PCRE2_ALT_BSUX;
  int code = 0;
  PCRE2_SIZE at = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                            options | PCRE2_NEVER_BACKSLASH_C, &code, &at, context.get()),
              pcre2_code_free);
  ESP_REQUIRE(code_, FormatError, where_, " does not compile: ", detail::pcre2_message(code));
  pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // on failure the matcher interprets
}

ESP_INLINE RegexSearch::RegexSearch(const Regex& regex, std::string_view text)
    : regex_(regex),
      text_(text),
      allowance_((1 << 22) + 64 * static_cast<std::uint64_t>(text.size())),
      data_(regex.kind_ == RegexKind::python
                ? pcre2_match_data_create_from_pattern(regex.code_.get(), nullptr)
                : pcre2_match_data_create(1, nullptr),
            pcre2_match_data_free) {
  ESP_REQUIRE(data_, Error, regex_.where_, ": out of memory in PCRE2");
}

ESP_INLINE int RegexSearch::run(std::size_t from, std::uint32_t options, std::uint64_t steps) {
  static thread_local detail::RegexThread thread;
  return pcre2_match(regex_.code_.get(), reinterpret_cast<PCRE2_SPTR>(text_.data()), text_.size(),
                     from, options | PCRE2_NO_UTF_CHECK, data_.get(), thread.limited_to(steps));
}

/// Matches at byte `at` only. PCRE2 interprets where a match is anchored by the call.
ESP_INLINE int RegexSearch::search_here(std::size_t at, std::uint32_t options) {
  for (std::uint64_t steps = kQuickSteps;;) {
    const int rc = run(at, PCRE2_ANCHORED | options, steps);
    if (rc != PCRE2_ERROR_MATCHLIMIT) return rc;
    ESP_REQUIRE(allowance_ > steps, FormatError, regex_.where_,
                " needs too much work for a text of ", text_.size(),
                " bytes; write a pattern that backtracks less, or split the text");
    steps = std::min({steps * 16, allowance_, std::uint64_t{0xffffffff}});
    allowance_ -= steps;
  }
}

ESP_INLINE bool RegexSearch::find(std::size_t from, bool empty_there) {
  const std::uint32_t options = empty_there ? 0 : PCRE2_NOTEMPTY_ATSTART;
  int rc = run(from, options, kQuickSteps);
  if (rc == PCRE2_ERROR_MATCHLIMIT || rc == PCRE2_ERROR_JIT_STACKLIMIT) {
    for (std::size_t at = from;; ++at) {
      const bool inside =
          at < text_.size() && (static_cast<unsigned char>(text_[at]) & 0xC0) == 0x80;
      if (inside && at > from && regex_.kind_ != RegexKind::whole_bytes) continue;
      rc = search_here(at, at == from ? options : 0);
      const bool last = at >= text_.size() || regex_.kind_ == RegexKind::whole_bytes;
      if (rc != PCRE2_ERROR_NOMATCH || last) break;
    }
  }
  if (rc == PCRE2_ERROR_NOMATCH) return false;
  ESP_REQUIRE(rc >= 0, FormatError, regex_.where_, " fails on a text of ", text_.size(),
              " bytes: ", detail::pcre2_message(rc), "; split the text into shorter ones");
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_.get());
  begin_ = offsets[0];
  end_ = offsets[1];
  return true;
}

ESP_INLINE std::vector<std::string_view> RegexSearch::groups() const {
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_.get());
  std::vector<std::string_view> groups(pcre2_get_ovector_count(data_.get()) - 1);
  for (std::size_t i = 0; i < groups.size(); ++i) {
    const PCRE2_SIZE* const at = offsets + 2 * (i + 1);
    if (at[0] != PCRE2_UNSET) groups[i] = text_.substr(at[0], at[1] - at[0]);
  }
  return groups;
}

}  // namespace espalier::io
#endif
