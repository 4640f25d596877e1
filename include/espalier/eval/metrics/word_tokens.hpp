// SPDX-License-Identifier: Apache-2.0
// Words of English text after the Penn Treebank's conventions, as NLTK's TreebankWordTokenizer has
// them: punctuation and brackets stand alone, a comma or colon before a digit does not, only the
// period at the end of the text does; "don't" is "do" "n't"; straight double quotes become `` and
// ''.
//   treebank_tokens   the text as one sentence
//   word_tokens       sentence by sentence (sentences.hpp), as NLTK's word_tokenize does with its
//                     trained splitter
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/word_tokens.hpp is host-only; include it from a .cpp"
#endif

#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/inline.hpp>

namespace espalier::eval::metrics {

[[nodiscard]] std::vector<std::string> treebank_tokens(std::string_view text);
[[nodiscard]] std::vector<std::string> word_tokens(std::string_view text);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>
#include <array>

#include <espalier/eval/metrics/python_text.hpp>
#include <espalier/eval/metrics/sentences.hpp>

namespace espalier::eval::metrics {

namespace detail {

/// Where the period stands that ends the text: only brackets, quotes and white space follow it, and
/// no period is before it. npos where there is none.
inline std::size_t final_period(std::string_view text) {
  std::string_view head = text.substr(0, strip(text).data() + strip(text).size() - text.data());
  const std::size_t at = head.find_last_not_of("])}>\"'");
  const bool ends = at != head.npos && at > 0 && head[at] == '.' && head[at - 1] != '.';
  return ends ? at : text.npos;
}

/// The text with spaces around what stands alone, and with `` and '' for double quotes.
class TreebankSpacing {
 public:
  explicit TreebankSpacing(std::string_view text) : text_(text), period_(final_period(text)) {}

  std::string run() {
    while (at_ < text_.size()) step();
    return out_ + ' ';
  }

 private:
  char ahead(std::size_t n) const { return at_ + n < text_.size() ? text_[at_ + n] : '\0'; }
  void alone(std::string_view symbol, std::size_t width) {
    out_ += ' ';
    out_ += symbol;
    out_ += ' ';
    at_ += width;
  }
  /// Does a quote at this place open? At the text's begin, and after a space or an open bracket.
  bool opens() const {
    return at_ == 0 || std::string_view(" ([{<").find(text_[at_ - 1]) != std::string_view::npos;
  }

  void step() {
    const char c = text_[at_];
    const std::string_view rest = text_.substr(at_);
    if (c == '"') return alone(opens() ? "``" : "''", 1);
    if (rest.starts_with("``")) return alone("``", 2);
    if (rest.starts_with("''")) return alone(opens() && at_ > 0 ? "``" : "''", 2);
    if (rest.starts_with("...")) return alone("...", 3);
    if (rest.starts_with("--")) return alone("--", 2);
    if (std::string_view(";@#$%&?![](){}<>").find(c) != std::string_view::npos) {
      return alone(rest.substr(0, 1), 1);
    }
    if (c == ',' || c == ':') {
      // The character after it belongs to the same match: of ",," the second stays where it is.
      if (is_ascii_digit(ahead(1))) return copy(1);
      alone(rest.substr(0, 1), 1);
      if (at_ < text_.size() && (text_[at_] == ',' || text_[at_] == ':')) copy(1);
      return;
    }
    if (at_ == period_) {
      out_ += ' ';
      return copy(1);
    }
    if (c == '\'' && ahead(1) == ' ' && at_ > 0 && text_[at_ - 1] != '\'') return alone("'", 1);
    copy(1);
  }
  void copy(std::size_t n) {
    out_ += text_.substr(at_, n);
    at_ += n;
  }

  std::string_view text_;
  std::size_t period_, at_ = 0;
  std::string out_;
};

/// Bytes of the clitic at the end of a word ("'s", "n't"); 0 for none.
inline std::size_t clitic_size(std::string_view word) {
  static constexpr std::string_view kLong[] = {"'ll", "'LL", "'re", "'RE",
                                               "'ve", "'VE", "n't", "N'T"};
  static constexpr std::string_view kShort[] = {"'s", "'S", "'m", "'M", "'d", "'D", "'"};
  const auto fits = [&](std::string_view clitic) {
    return word.size() > clitic.size() && word.ends_with(clitic) &&
           word[word.size() - clitic.size() - 1] != '\'';
  };
  for (const std::string_view c : kShort) {
    if (fits(c)) return c.size();
  }
  for (const std::string_view c : kLong) {
    if (fits(c)) return c.size();
  }
  return 0;
}

/// Where "cannot", "gonna" and their like are cut; 0 for other words.
inline std::size_t contraction_cut(std::string_view word) {
  struct Contraction {
    std::string_view word;
    std::size_t cut;
  };
  static constexpr Contraction kAll[] = {{"cannot", 3}, {"d'ye", 1},  {"gimme", 3},  {"gonna", 3},
                                         {"gotta", 3},  {"lemme", 3}, {"more'n", 4}, {"wanna", 3},
                                         {"'tis", 2},   {"'twas", 2}};
  const std::string small = lower(word);
  for (const Contraction& c : kAll) {
    if (small == c.word) return c.cut;
  }
  return 0;
}

}  // namespace detail

ESP_INLINE std::vector<std::string> treebank_tokens(std::string_view text) {
  const std::string valid = valid_text(text);
  const std::string spaced = detail::TreebankSpacing(valid).run();
  std::vector<std::string> tokens;
  for (std::string_view word : split(spaced)) {
    std::vector<std::string_view> tail;  // clitics, from the last
    for (std::size_t n; word != "''" && (n = detail::clitic_size(word)) > 0 && tail.size() < 2;) {
      tail.push_back(word.substr(word.size() - n));
      word.remove_suffix(n);
    }
    if (const std::size_t cut = detail::contraction_cut(word)) {
      tokens.emplace_back(word.substr(0, cut));
      word.remove_prefix(cut);
    }
    tokens.emplace_back(word);
    tokens.insert(tokens.end(), tail.rbegin(), tail.rend());
  }
  return tokens;
}

ESP_INLINE std::vector<std::string> word_tokens(std::string_view text) {
  std::vector<std::string> tokens;
  for (const std::string& sentence : split_sentences(text)) {
    for (std::string& token : treebank_tokens(sentence)) tokens.push_back(std::move(token));
  }
  return tokens;
}

}  // namespace espalier::eval::metrics
#endif
