// SPDX-License-Identifier: Apache-2.0
// Mathematical answers as texts: where they stand in what a model wrote, and their normal forms.
//   MATH (Hendrycks et al. 2021)       last_boxed, math_strip, math_is_equiv
//   Minerva (Lewkowycz et al. 2022)    minerva_answer, minerva_normalize (its appendix D)
// math_match.hpp compares answers as values.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/math_answer.hpp is host-only; include it from a .cpp"
#endif

#include <optional>
#include <string>
#include <string_view>

#include <espalier/core/inline.hpp>

namespace espalier::eval::metrics {

/// What the last \boxed{...} or, where there is none, \fbox{...} contains, with balanced braces; of
/// "\boxed 5$" what stands up to a $.
[[nodiscard]] std::optional<std::string> last_boxed(std::string_view text);

/// Hendrycks' normal form: without spaces, \left, \right, degrees, units on the right, percent,
/// "x=" in front; one spelling of fractions and roots.
[[nodiscard]] std::string math_strip(std::string_view text);
/// Have both the same normal form?
[[nodiscard]] bool math_is_equiv(std::string_view a, std::string_view b);

/// X of "Final Answer: The final answer is X. I hope it is correct." (the end may be missing), else
/// "[invalidanswer]".
[[nodiscard]] std::string minerva_answer(std::string_view text);
[[nodiscard]] std::string minerva_normalize(std::string_view answer);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

#include <espalier/eval/metrics/python_regex.hpp>
#include <espalier/eval/metrics/python_text.hpp>

namespace espalier::eval::metrics {

namespace detail {

/// Where the brace closes that opens at `open`; npos where none does.
inline std::size_t closing_brace(std::string_view text, std::size_t open) {
  int depth = 0;
  for (std::size_t i = open; i < text.size(); ++i) {
    depth += text[i] == '{' ? 1 : text[i] == '}' ? -1 : 0;
    if (depth == 0) return i;
  }
  return text.npos;
}

/// "\frac12", "\frac1{2}" and "\frac{1}{2}" as the last; a lone "\frac1" ends the work.
inline std::string with_fraction_braces(const std::string& text) {
  const std::vector<std::string_view> parts = split(text, "\\frac");
  std::string out(parts[0]);
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const std::string_view p = parts[i];
    out += "\\frac";
    if (p.starts_with('{')) {
      out += p;
      continue;
    }
    if (p.size() < 2) return text;
    out += std::string("{") + p[0] + "}";
    out += p[1] == '{' ? std::string(p.substr(1))
                       : "{" + std::string(1, p[1]) + "}" + std::string(p.substr(2));
  }
  return out;
}

inline std::string with_root_braces(const std::string& text) {
  const std::vector<std::string_view> parts = split(text, "\\sqrt");
  std::string out(parts[0]);
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const std::string_view p = parts[i];
    out += "\\sqrt";
    const bool bare = !p.empty() && p[0] != '{';
    out += bare ? "{" + std::string(1, p[0]) + "}" + std::string(p.substr(1)) : std::string(p);
  }
  return out;
}

inline bool is_plain_integer(std::string_view s) {
  if (s.starts_with('-')) s.remove_prefix(1);
  const bool digits = !s.empty() && std::all_of(s.begin(), s.end(), is_ascii_digit);
  return digits && (s == "0" || s[0] != '0');
}

}  // namespace detail

ESP_INLINE std::optional<std::string> last_boxed(std::string_view text) {
  constexpr std::string_view kBare = "\\boxed ";
  if (const std::size_t bare = text.rfind(kBare); bare != text.npos) {
    const std::string_view rest = text.substr(bare + kBare.size());
    return std::string(rest.substr(0, rest.find('$')));
  }
  std::size_t at = text.rfind("\\boxed");
  if (at == text.npos) at = text.rfind("\\fbox");
  if (at == text.npos) return std::nullopt;
  const std::size_t open = text.find('{', at);
  if (open == text.npos) return std::nullopt;
  const std::size_t close = detail::closing_brace(text, open);
  if (close == text.npos) return std::nullopt;
  return std::string(text.substr(open + 1, close - open - 1));
}

ESP_INLINE std::string math_strip(std::string_view text) {
  std::string s(text);
  for (const auto& [from, to] :
       {std::pair{"\n", ""}, std::pair{"\\!", ""}, std::pair{"\\\\", "\\"},
        std::pair{"tfrac", "frac"}, std::pair{"dfrac", "frac"}, std::pair{"\\left", ""},
        std::pair{"\\right", ""}, std::pair{"^{\\circ}", ""}, std::pair{"^\\circ", ""},
        std::pair{"\\$", ""}}) {
    s = replace_all(s, from, to);
  }
  if (const std::size_t units = s.find("\\text{ "); units != s.npos) s.resize(units);
  s = replace_all(replace_all(replace_all(s, "\\%", ""), " .", " 0."), "{.", "{0.");
  if (s.empty()) return s;
  if (s[0] == '.') s.insert(0, "0");
  if (const std::vector<std::string_view> sides = split(s, "=");
      sides.size() == 2 && code_points(sides[0]).size() <= 2) {
    s = std::string(sides[1]);
  }
  s = detail::with_fraction_braces(replace_all(detail::with_root_braces(s), " ", ""));
  if (s == "0.5") s = "\\frac{1}{2}";
  const std::vector<std::string_view> sides = split(s, "/");
  if (sides.size() == 2 && detail::is_plain_integer(sides[0]) &&
      detail::is_plain_integer(sides[1])) {
    s = "\\frac{" + std::string(sides[0]) + "}{" + std::string(sides[1]) + "}";
  }
  return s;
}

ESP_INLINE bool math_is_equiv(std::string_view a, std::string_view b) {
  return math_strip(a) == math_strip(b);
}

ESP_INLINE std::string minerva_answer(std::string_view text) {
  static const PythonRegex answer(
      R"(Final Answer: The final answer is(.*?). I hope it is correct.)", "minerva_answer");
  const std::string whole = valid_text(text) + "I hope it is correct.";
  const auto match = answer.search(whole);
  return match ? std::string(strip(match->groups[0])) : "[invalidanswer]";
}

namespace detail {

/// Appendix D's words that are no part of an answer.
inline constexpr std::string_view kUnitWords[] = {
    "square",   "ways",    "integers", "dollars",  "mph",
    "inches",   "ft",      "hours",    "km",       "units",
    "sue",      "points",  "feet",     "minutes",  "digits",
    "cents",    "degrees", "cm",       "gm",       "pounds",
    "meters",   "meals",   "edges",    "students", "childrentickets",
    "multiples"};

inline PythonRegex unit_word_regex() {
  std::string words;
  for (const std::string_view w : kUnitWords) words += (words.empty() ? "" : "|") + std::string(w);
  return {R"((?<!\\)\b(?:)" + words + R"()\b)", "minerva_normalize"};
}

inline std::string without_unit_words(const std::string& s) {
  static const PythonRegex command(R"(\\[a-zA-Z]+)", "minerva_normalize");
  std::string out;
  std::size_t done = 0;
  // "ft" is no unit in "\left": commands stay as they are.
  const auto add_rest = [&](std::string_view rest) {
    std::string plain(rest);
    for (const std::string_view word : kUnitWords) plain = replace_all(plain, word, "");
    out += plain;
  };
  for (const PythonRegex::Match& m : command.find_all(s)) {
    add_rest(std::string_view(s).substr(done, m.begin - done));
    out += m.text(s);
    done = m.end;
  }
  add_rest(std::string_view(s).substr(done));
  return out;
}

/// re.sub of a pattern by one of its groups between two texts.
inline std::string substitute_group(const std::string& text, const PythonRegex& pattern,
                                    std::string_view around, std::size_t group) {
  return pattern.substitute(text, [&](const PythonRegex::Match& m) {
    return std::string(around) + std::string(m.groups[group]) + std::string(around);
  });
}

}  // namespace detail

ESP_INLINE std::string minerva_normalize(std::string_view answer) {
  const std::string valid = valid_text(answer);
  std::string s(split(valid, "=").back());
  // Words first while spaces still delimit them: "2\pi cm".
  static const PythonRegex words = detail::unit_word_regex();
  s = words.substitute(s, "");
  for (const auto& [from, to] :
       {std::pair{"an ", ""}, std::pair{"a ", ""}, std::pair{".$", "$"}, std::pair{"\\$", ""},
        std::pair{"\\ ", ""}, std::pair{" ", ""}, std::pair{"mbox", "text"},
        std::pair{",\\text{and}", ","}, std::pair{"\\text{and}", ","},
        std::pair{"\\text{m}", "\\text{}"}}) {
    s = replace_all(s, from, to);
  }
  s = detail::without_unit_words(s);
  for (const char* gone : {"\\ldots", "\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2",
                           "\\text{}^3", "\\text{\n}", "\\text{}", "\\mathrm{th}", "^\\circ",
                           "^{\\circ}", "\\;", ",\\!", "{,}", "\"", "\\dots"}) {
    s = replace_all(s, gone, "");
  }
  static const PythonRegex dollars(R"((.*?)(\$)(.*?)(\$)(.*))", "minerva_normalize");
  static const PythonRegex wrappers[] = {{R"((\\text\{)(.*?)(\}))", "minerva_normalize"},
                                         {R"((\\textbf\{)(.*?)(\}))", "minerva_normalize"},
                                         {R"((\\overline\{)(.*?)(\}))", "minerva_normalize"},
                                         {R"((\\boxed\{)(.*)(\}))", "minerva_normalize"}};
  s = detail::substitute_group(s, dollars, "$", 2);
  for (const PythonRegex& wrapper : wrappers) s = detail::substitute_group(s, wrapper, "", 1);
  static const PythonRegex fraction("(frac)([^{])(.)", "minerva_normalize"),
      indexed_root(R"((sqrt)(\[[^\]]*\])(\w))", "minerva_normalize"),
      root(R"((sqrt)(?!\[)([^{]))", "minerva_normalize"),
      thousands(R"(^-?\d{1,3}(,\d{3})+\Z)", "minerva_normalize");
  const auto braced = [](std::string_view inside) { return "{" + std::string(inside) + "}"; };
  s = fraction.substitute(s, [&](const PythonRegex::Match& m) {
    return "frac" + braced(m.groups[1]) + braced(m.groups[2]);
  });
  s = indexed_root.substitute(s, [&](const PythonRegex::Match& m) {
    return "sqrt" + std::string(m.groups[1]) + braced(m.groups[2]);
  });
  s = root.substitute(s, [&](const PythonRegex::Match& m) { return "sqrt" + braced(m.groups[1]); });
  std::erase(s, '$');
  if (thousands.search(s)) std::erase(s, ',');
  return s;
}

}  // namespace espalier::eval::metrics
#endif
