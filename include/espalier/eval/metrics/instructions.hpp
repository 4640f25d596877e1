// SPDX-License-Identifier: Apache-2.0
// IFEval (Zhou et al. 2023): does a response follow the instructions of its prompt, which a program
// can verify? 24 of the 25 kinds of instruction, each with the arguments of the hub's columns
// `instruction_id_list` and `kwargs`. Differences from google-research/instruction_following_eval:
//   language:response_language     not implemented: it needs a language identifier
//   change_case:english_*          the case alone is checked, not that the language is English
//   length_constraints:number_sentences   sentences by rule (sentences.hpp), not by NLTK's Punkt
//   change_case:capital_word_frequency    words by rule (word_tokens.hpp), not by NLTK's tokenizer
// Words of number_words are runs of word characters in both.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/instructions.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/inline.hpp>
#include <espalier/io/json.hpp>

namespace espalier::eval::metrics {

/// Does the response follow one instruction? A blank response follows none.
/// @param kwargs an object; null counts as absent
/// @throws FormatError for an unknown id, and for an argument that is missing or of the wrong type
/// @throws UnsupportedError for language:response_language
[[nodiscard]] bool follows_instruction(std::string_view id, const io::Json& kwargs,
                                       std::string_view response);
/// Is the id one that follows_instruction checks? Rows with another must be left out.
[[nodiscard]] bool is_checked_instruction(std::string_view id);
/// The ids of all that are checked.
[[nodiscard]] std::vector<std::string> checked_instructions();

struct FollowedInstructions {
  std::vector<bool> strict, loose;  // one entry for each instruction of the prompt
};
/// Loose: does the response follow it, or any of seven variants, which lack the first line, the
/// last line, both, and the asterisks of these four?
/// @throws FormatError if there are not as many kwargs as ids
[[nodiscard]] FollowedInstructions follow_instructions(const std::vector<std::string>& ids,
                                                       const io::Json& kwargs,
                                                       std::string_view response);

/// Shares of prompts of which all instructions are followed, and of instructions; NaN without any.
class InstructionScores {
 public:
  void add(const FollowedInstructions& prompt);

  double prompt_strict() const { return share(all_strict_, prompts_); }
  double prompt_loose() const { return share(all_loose_, prompts_); }
  double instruction_strict() const { return share(strict_, instructions_); }
  double instruction_loose() const { return share(loose_, instructions_); }

 private:
  static double share(std::size_t part, std::size_t whole) {
    return static_cast<double>(part) / static_cast<double>(whole);
  }
  std::size_t prompts_ = 0, instructions_ = 0;
  std::size_t all_strict_ = 0, all_loose_ = 0, strict_ = 0, loose_ = 0;
};

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>

#include <espalier/core/error.hpp>
#include <espalier/eval/metrics/python_regex.hpp>
#include <espalier/eval/metrics/sentences.hpp>
#include <espalier/eval/metrics/word_tokens.hpp>

namespace espalier::eval::metrics {

namespace detail {

/// The arguments of one instruction.
class InstructionArguments {
 public:
  InstructionArguments(std::string_view id, const io::Json& kwargs) : id_(id), kwargs_(kwargs) {}

  std::string text(const char* key) const { return at(key).as_string(); }
  std::size_t number(const char* key) const { return static_cast<std::size_t>(at(key).as_uint()); }
  std::vector<std::string> texts(const char* key) const {
    std::vector<std::string> out;
    for (const io::Json& item : at(key).items()) out.push_back(item.as_string());
    return out;
  }
  /// Is `count` "less than" or "at least" a number? A number of 0 is left out of the columns.
  bool compare(std::size_t count, const char* relation, const char* number_key) const {
    const std::string how = text(relation);
    ESP_REQUIRE(how == "less than" || how == "at least", FormatError, at(relation).where(), ": ",
                id_, ": expected \"less than\" or \"at least\", found \"", how, "\"");
    const io::Json* bound = kwargs_.find_value(number_key);
    const std::size_t n = bound == nullptr ? 0 : static_cast<std::size_t>(bound->as_uint());
    return how == "less than" ? count < n : count >= n;
  }
  PythonRegex regex(const std::string& pattern) const { return {pattern, id_}; }

 private:
  const io::Json& at(const char* key) const {
    const io::Json* v = kwargs_.find_value(key);
    ESP_REQUIRE(v != nullptr, FormatError, kwargs_.where(), ": ", id_, " needs \"", key, "\"");
    return *v;
  }

  std::string id_;
  const io::Json& kwargs_;
};

inline std::size_t count_matches(const PythonRegex& regex, std::string_view text) {
  return regex.find_all(text).size();
}

/// str.isupper and str.islower: a letter of that case, and none of another.
inline bool is_all_case(std::string_view text, bool upper_case) {
  bool found = false;
  for (const char32_t c : code_points(text)) {
    const utf8proc_category_t k = utf8proc_category(static_cast<utf8proc_int32_t>(c));
    if (k != UTF8PROC_CATEGORY_LU && k != UTF8PROC_CATEGORY_LL && k != UTF8PROC_CATEGORY_LT) {
      continue;
    }
    if (k != (upper_case ? UTF8PROC_CATEGORY_LU : UTF8PROC_CATEGORY_LL)) return false;
    found = true;
  }
  return found;
}

/// The text between the matches of a pattern.
inline std::vector<std::string_view> split_by(const PythonRegex& regex, std::string_view text) {
  std::vector<std::string_view> parts;
  std::size_t done = 0;
  for (const PythonRegex::Match& m : regex.find_all(text)) {
    parts.push_back(text.substr(done, m.begin - done));
    done = m.end;
  }
  parts.push_back(text.substr(done));
  return parts;
}

/// Parts that are not blank; `inner_blank` says whether a blank one stands between others.
inline std::vector<std::string_view> parts_with_text(const std::vector<std::string_view>& parts,
                                                     bool& inner_blank) {
  std::vector<std::string_view> out;
  inner_blank = false;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (!strip(parts[i]).empty()) {
      out.push_back(parts[i]);
    } else if (i != 0 && i + 1 != parts.size()) {
      inner_blank = true;
    }
  }
  return out;
}

using Arguments = const InstructionArguments&;
using Response = const std::string&;

inline bool has_keywords(Arguments a, Response r) {
  const std::vector<std::string> words = a.texts("keywords");
  return std::all_of(words.begin(), words.end(), [&](const std::string& w) {
    return a.regex("(?i)" + w).search(r).has_value();
  });
}
inline bool has_keyword_frequency(Arguments a, Response r) {
  const std::string word(strip(a.text("keyword")));
  return a.compare(count_matches(a.regex("(?i)" + word), r), "relation", "frequency");
}
inline bool lacks_forbidden_words(Arguments a, Response r) {
  const std::vector<std::string> words = a.texts("forbidden_words");
  return std::none_of(words.begin(), words.end(), [&](const std::string& w) {
    return a.regex("(?i)\\b" + w + "\\b").search(r).has_value();
  });
}
inline bool has_letter_frequency(Arguments a, Response r) {
  const std::u32string letter = code_points(lower(strip(a.text("letter"))));
  const std::u32string text = code_points(lower(r));
  const auto count = letter.size() == 1 ? std::count(text.begin(), text.end(), letter[0]) : 0;
  return a.compare(static_cast<std::size_t>(count), "let_relation", "let_frequency");
}

inline bool has_sentences(Arguments a, Response r) {
  return a.compare(split_sentences(r).size(), "relation", "num_sentences");
}
inline bool has_words(Arguments a, Response r) {
  return a.compare(count_matches(a.regex("\\w+"), r), "relation", "num_words");
}
inline bool has_paragraphs(Arguments a, Response r) {
  bool inner_blank = false;
  const std::size_t count =
      parts_with_text(split_by(a.regex(R"(\s?\*\*\*\s?)"), r), inner_blank).size();
  return !inner_blank && count == a.number("num_paragraphs");
}
inline bool has_paragraph_with_first_word(Arguments a, Response r) {
  const std::vector<std::string_view> paragraphs = split(r, "\n\n");
  bool inner_blank = false;
  const std::size_t count = parts_with_text(paragraphs, inner_blank).size();
  const std::size_t nth = a.number("nth_paragraph");
  // Blank paragraphs do not count, yet the nth is sought among all.
  if (nth > count || strip(paragraphs[nth - 1]).empty()) return false;
  std::string_view word = split(paragraphs[nth - 1])[0];
  while (word.starts_with('\'')) word.remove_prefix(1);
  while (word.starts_with('"')) word.remove_prefix(1);
  word = word.substr(0, word.find_first_of(".,?!'\""));
  return count == a.number("num_paragraphs") && lower(word) == lower(a.text("first_word"));
}

inline bool has_placeholders(Arguments a, Response r) {
  return count_matches(a.regex(R"(\[.*?\])"), r) >= a.number("num_placeholders");
}
inline bool has_postscript(Arguments a, Response r) {
  const std::string marker(strip(a.text("postscript_marker")));
  std::string pattern = lower(marker);
  if (marker == "P.P.S") pattern = R"(p\.\s?p\.\s?s)";
  if (marker == "P.S.") pattern = R"(p\.\s?s\.)";
  return a.regex(pattern).search(lower(r)).has_value();
}
inline bool has_bullets(Arguments a, Response r) {
  return count_matches(a.regex(R"((?m)^\s*\*[^\*].*$)"), r) +
             count_matches(a.regex(R"((?m)^\s*-.*$)"), r) ==
         a.number("num_bullets");
}
inline bool has_highlights(Arguments a, Response r) {
  std::size_t count = 0;
  for (const char* pattern : {R"(\*[^\n\*]*\*)", R"(\*\*[^\n\*]*\*\*)"}) {
    for (const PythonRegex::Match& m : a.regex(pattern).find_all(r)) {
      count += strip(strip(m.text(r), "*")).empty() ? 0 : 1;
    }
  }
  return count >= a.number("num_highlights");
}
inline bool has_sections(Arguments a, Response r) {
  const std::string title(strip(a.text("section_spliter")));
  return count_matches(a.regex("\\s?" + title + R"(\s?\d+\s?)"), r) >= a.number("num_sections");
}
inline bool is_json(Arguments, Response r) {
  std::string_view s = strip(r);
  for (const std::string_view fence : {"```json", "```Json", "```JSON", "```"}) {
    if (s.starts_with(fence)) s.remove_prefix(fence.size());
  }
  if (s.ends_with("```")) s.remove_suffix(3);
  try {
    (void)io::parse_json(strip(s), "response");
    return true;
  } catch (const FormatError&) {
    return false;
  }
}
inline bool has_title(Arguments a, Response r) {
  const std::vector<PythonRegex::Match> titles = a.regex(R"(<<[^\n]+>>)").find_all(r);
  return std::any_of(titles.begin(), titles.end(), [&](const PythonRegex::Match& m) {
    std::string_view title = m.text(r);
    title.remove_prefix(std::min(title.find_first_not_of('<'), title.size()));
    return !strip(title.substr(0, title.find_last_not_of('>') + 1)).empty();
  });
}
inline bool has_constrained_response(Arguments, Response r) {
  return r.find("My answer is yes.") != r.npos || r.find("My answer is no.") != r.npos ||
         r.find("My answer is maybe.") != r.npos;
}

inline bool has_two_responses(Arguments, Response r) {
  bool inner_blank = false;
  const std::vector<std::string_view> both = parts_with_text(split(r, "******"), inner_blank);
  return !inner_blank && both.size() == 2 && strip(both[0]) != strip(both[1]);
}
inline bool repeats_prompt(Arguments a, Response r) {
  return lower(strip(r)).starts_with(lower(strip(a.text("prompt_to_repeat"))));
}
inline bool ends_with_phrase(Arguments a, Response r) {
  return lower(strip(strip(r), "\"")).ends_with(lower(strip(a.text("end_phrase"))));
}
inline bool is_quoted(Arguments, Response r) {
  const std::string_view s = strip(r);
  return s.size() > 1 && s.front() == '"' && s.back() == '"';
}
inline bool has_capital_words(Arguments a, Response r) {
  const std::vector<std::string> words = word_tokens(r);
  const auto count = std::count_if(words.begin(), words.end(),
                                   [](const std::string& w) { return is_all_case(w, true); });
  return a.compare(static_cast<std::size_t>(count), "capital_relation", "capital_frequency");
}

struct Instruction {
  std::string_view id;
  bool (*follows)(Arguments, Response);
};

inline constexpr Instruction kInstructions[] = {
    {"keywords:existence", has_keywords},
    {"keywords:frequency", has_keyword_frequency},
    {"keywords:forbidden_words", lacks_forbidden_words},
    {"keywords:letter_frequency", has_letter_frequency},
    {"length_constraints:number_sentences", has_sentences},
    {"length_constraints:number_paragraphs", has_paragraphs},
    {"length_constraints:number_words", has_words},
    {"length_constraints:nth_paragraph_first_word", has_paragraph_with_first_word},
    {"detectable_content:number_placeholders", has_placeholders},
    {"detectable_content:postscript", has_postscript},
    {"detectable_format:number_bullet_lists", has_bullets},
    {"detectable_format:constrained_response", has_constrained_response},
    {"detectable_format:number_highlighted_sections", has_highlights},
    {"detectable_format:multiple_sections", has_sections},
    {"detectable_format:json_format", is_json},
    {"detectable_format:title", has_title},
    {"combination:two_responses", has_two_responses},
    {"combination:repeat_prompt", repeats_prompt},
    {"startend:end_checker", ends_with_phrase},
    {"startend:quotation", is_quoted},
    {"change_case:capital_word_frequency", has_capital_words},
    {"change_case:english_capital", [](Arguments, Response r) { return is_all_case(r, true); }},
    {"change_case:english_lowercase", [](Arguments, Response r) { return is_all_case(r, false); }},
    {"punctuation:no_comma", [](Arguments, Response r) { return r.find(',') == r.npos; }}};

inline const Instruction* find_instruction(std::string_view id) {
  const auto it = std::find_if(std::begin(kInstructions), std::end(kInstructions),
                               [&](const Instruction& i) { return i.id == id; });
  return it == std::end(kInstructions) ? nullptr : it;
}

/// The response and its seven looser variants.
inline std::vector<std::string> loose_variants(const std::string& response) {
  const std::size_t first = response.find('\n'), last = response.rfind('\n');
  const bool lines = first != response.npos;
  std::vector<std::string> all = {
      response, lines ? std::string(strip(std::string_view(response).substr(first + 1))) : "",
      lines ? std::string(strip(std::string_view(response).substr(0, last))) : "",
      lines && first < last
          ? std::string(strip(std::string_view(response).substr(first + 1, last - first - 1)))
          : ""};
  for (std::size_t i = 0; i < 4; ++i) all.push_back(replace_all(all[i], "*", ""));
  return all;
}

}  // namespace detail

ESP_INLINE bool is_checked_instruction(std::string_view id) {
  return detail::find_instruction(id) != nullptr;
}

ESP_INLINE std::vector<std::string> checked_instructions() {
  std::vector<std::string> ids;
  for (const detail::Instruction& i : detail::kInstructions) ids.emplace_back(i.id);
  return ids;
}

ESP_INLINE bool follows_instruction(std::string_view id, const io::Json& kwargs,
                                    std::string_view response) {
  ESP_REQUIRE(id != "language:response_language", UnsupportedError, kwargs.where(), ": ", id,
              " is not implemented: it needs a language identifier; leave the row out");
  const detail::Instruction* instruction = detail::find_instruction(id);
  ESP_REQUIRE(instruction != nullptr, FormatError, kwargs.where(), ": \"", id,
              "\" is no instruction of IFEval");
  const std::string text = valid_text(response);
  return instruction->follows({id, kwargs}, text) && !strip(text).empty();
}

ESP_INLINE FollowedInstructions follow_instructions(const std::vector<std::string>& ids,
                                                    const io::Json& kwargs,
                                                    std::string_view response) {
  ESP_REQUIRE(kwargs.items().size() == ids.size(), FormatError, kwargs.where(), ": ", ids.size(),
              " instructions, but arguments of ", kwargs.items().size());
  FollowedInstructions out;
  const std::vector<std::string> variants = detail::loose_variants(valid_text(response));
  for (std::size_t i = 0; i < ids.size(); ++i) {
    const auto follows = [&](const std::string& variant) {
      return follows_instruction(ids[i], kwargs.items()[i], variant);
    };
    out.strict.push_back(follows(variants[0]));
    out.loose.push_back(std::any_of(variants.begin(), variants.end(), follows));
  }
  return out;
}

ESP_INLINE void InstructionScores::add(const FollowedInstructions& prompt) {
  const auto count = [](const std::vector<bool>& followed) {
    return static_cast<std::size_t>(std::count(followed.begin(), followed.end(), true));
  };
  const std::size_t strict = count(prompt.strict), loose = count(prompt.loose);
  ++prompts_;
  instructions_ += prompt.strict.size();
  strict_ += strict;
  loose_ += loose;
  all_strict_ += strict == prompt.strict.size() ? 1 : 0;
  all_loose_ += loose == prompt.loose.size() ? 1 : 0;
}

}  // namespace espalier::eval::metrics
#endif
