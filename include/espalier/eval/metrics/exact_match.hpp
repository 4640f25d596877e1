// SPDX-License-Identifier: Apache-2.0
// exact_match of lm-evaluation-harness: are two texts equal, once what is to be ignored is gone
// from both? First each pattern of `regexes_to_ignore` is removed, in turn, then case, ASCII
// punctuation, ASCII digits. GSM8K ignores `,` `\$` `(?s).*#### ` `\.$` and case.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/exact_match.hpp is host-only; include it from a .cpp"
#endif

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/inline.hpp>
#include <espalier/eval/metrics/python_regex.hpp>

namespace espalier::eval::metrics {

struct ExactMatchOptions {
  std::vector<std::string> regexes_to_ignore;
  bool ignore_case = false, ignore_punctuation = false, ignore_numbers = false;
};

class ExactMatch {
 public:
  /// @param where names the patterns in messages
  /// @throws FormatError if a pattern does not compile
  ExactMatch(const ExactMatchOptions& options, const std::string& where);

  /// @return 1 or 0
  [[nodiscard]] double operator()(std::string_view prediction, std::string_view reference) const {
    return normalized(prediction) == normalized(reference) ? 1 : 0;
  }
  /// 1 if the prediction is equal to any of the references.
  [[nodiscard]] double operator()(std::string_view prediction,
                                  std::span<const std::string> references) const;
  /// The text that is compared.
  [[nodiscard]] std::string normalized(std::string_view text) const;

 private:
  ExactMatchOptions options_;
  std::vector<PythonRegex> ignored_;
};

/// GSM8K's options, for the answers of both of its filters.
[[nodiscard]] inline ExactMatchOptions gsm8k_exact_match() {
  return {{",", "\\$", "(?s).*#### ", "\\.$"}, true, false, false};
}

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>

namespace espalier::eval::metrics {

ESP_INLINE ExactMatch::ExactMatch(const ExactMatchOptions& options, const std::string& where)
    : options_(options) {
  for (const std::string& pattern : options.regexes_to_ignore)
    ignored_.emplace_back(pattern, where);
}

ESP_INLINE std::string ExactMatch::normalized(std::string_view text) const {
  std::string s = valid_text(text);
  for (const PythonRegex& regex : ignored_) s = regex.substitute(s, "");
  if (options_.ignore_case) s = lower(s);
  if (options_.ignore_punctuation) std::erase_if(s, is_ascii_punctuation);
  if (options_.ignore_numbers) std::erase_if(s, is_ascii_digit);
  return s;
}

ESP_INLINE double ExactMatch::operator()(std::string_view prediction,
                                         std::span<const std::string> references) const {
  const std::string given = normalized(prediction);
  return std::any_of(references.begin(), references.end(),
                     [&](const std::string& r) { return normalized(r) == given; });
}

}  // namespace espalier::eval::metrics
#endif
