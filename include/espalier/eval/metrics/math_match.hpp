// SPDX-License-Identifier: Apache-2.0
// Finds mathematical answers in what a model wrote and compares them as values (math_value.hpp),
// else as plain texts. The rules are those of LightEval's extractive matches (expr_gold_metric,
// pass_at_k_math, g_pass_at_k_latex), which compare with sympy; sympy knows more functions and
// simplifies further.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/math_match.hpp is host-only; include it from a .cpp"
#endif

#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/inline.hpp>

namespace espalier::eval::metrics {

/// Equal as texts, as values, item by item (in any order if the gold is a set \{...\}), or in what
/// follows the last "=". Numbers are rounded to `decimals` places if one is written with a point.
[[nodiscard]] bool math_equal(std::string_view gold, std::string_view answer, int decimals = 6);

struct MathTargets {
  bool expressions = true;   // 3, 1,000.5, 50%, 2*(3+4)
  bool latex = true;         // $...$, \(...\), $$...$$, \[...\], \frac{1}{2}, \boxed{...}
  bool boxed_first = false;  // before all words, in place of after "final answer is"
};
/// The answer of a text, and a second one where the first has no value. In order of priority, of
/// several the one that ends last: "final answer is X. I hope"; "final answer ... is X"; \boxed{X};
/// "answer: X"; "answer X"; any X. After "answer" X begins within 50 characters of the line, or
/// after the last "=" within 100.
[[nodiscard]] std::vector<std::string> extract_math(std::string_view text,
                                                    const MathTargets& targets);
/// 1 if an answer of the prediction equals one of the gold, which counts as a whole if it has none.
[[nodiscard]] double math_match(std::string_view gold, const MathTargets& gold_targets,
                                std::string_view prediction, const MathTargets& targets,
                                int decimals = 6);

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>
#include <cstddef>
#include <optional>
#include <utility>

#include <espalier/eval/metrics/math_answer.hpp>
#include <espalier/eval/metrics/math_value.hpp>
#include <espalier/eval/metrics/python_regex.hpp>
#include <espalier/eval/metrics/python_text.hpp>

namespace espalier::eval::metrics {

namespace detail {

/// The items between commas at the outermost level of "(a, b)" or "a, b"; thousands are no items.
/// Empty where there are fewer than two.
inline std::vector<std::string> tuple_items(std::string_view text, bool& is_set) {
  std::string_view s = strip(text);
  is_set = s.starts_with("\\{") && s.ends_with("\\}");
  if (is_set) {
    s = s.substr(2, s.size() - 4);
  } else if (s.size() > 1 && (s[0] == '(' || s[0] == '[') && (s.back() == ')' || s.back() == ']')) {
    s = s.substr(1, s.size() - 2);
  }
  std::vector<std::string> items(1);
  int depth = 0;
  for (const char c : s) {
    depth += c == '(' || c == '[' || c == '{' ? 1 : c == ')' || c == ']' || c == '}' ? -1 : 0;
    if (depth < 0) return {};
    if (c == ',' && depth == 0) {
      items.emplace_back();
    } else {
      items.back() += c;
    }
  }
  return items.size() > 1 ? items : std::vector<std::string>();
}

inline bool equal_values(std::string_view a, std::string_view b, int decimals) {
  const std::optional<MathValue> x = MathValue::parse(a), y = MathValue::parse(b);
  if (!x || !y) return false;
  if (x->equals(*y)) return true;
  const std::optional<Rational> p = x->rational(), q = y->rational();
  return p && q && (x->is_decimal() || y->is_decimal()) && equal_rounded(*p, *q, decimals);
}

inline bool equal_items(const std::vector<std::string>& a, std::vector<std::string> b,
                        bool in_order, int decimals) {
  if (a.size() != b.size() || a.size() > 64) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto last = in_order ? b.begin() + static_cast<std::ptrdiff_t>(i) + 1 : b.end();
    const auto hit = std::find_if(b.begin() + static_cast<std::ptrdiff_t>(i), last,
                                  [&](auto& item) { return math_equal(a[i], item, decimals); });
    if (hit == last) return false;
    std::iter_swap(b.begin() + static_cast<std::ptrdiff_t>(i), hit);
  }
  return true;
}

}  // namespace detail

ESP_INLINE bool math_equal(std::string_view a, std::string_view b, int decimals) {
  const std::string x = plain_math(valid_text(a)), y = plain_math(valid_text(b));
  const auto compact = [](const std::string& s) { return replace_all(s, " ", ""); };
  if (compact(x) == compact(y) || math_is_equiv(x, y)) return true;
  if (detail::equal_values(x, y, decimals)) return true;
  const auto right_side = [](std::string_view s) { return s.substr(s.rfind('=') + 1); };
  if (x.find('=') != x.npos || y.find('=') != y.npos) {
    return math_equal(right_side(x), right_side(y), decimals);
  }
  bool x_is_set = false, y_is_set = false;
  const std::vector<std::string> p = detail::tuple_items(x, x_is_set),
                                 q = detail::tuple_items(y, y_is_set);
  return !p.empty() && detail::equal_items(p, q, !x_is_set, decimals);
}

namespace detail {

/// An answer that a text may have meant.
struct MathTarget {
  std::size_t begin, end;  // bytes
  std::string text;
};

/// Adds $...$, \(...\), $$...$$, \[...\] and bare \frac{1}{2}, each with a percent sign after it.
inline void find_latex(std::string_view text, std::vector<MathTarget>& out) {
  struct Environment {
    std::string_view open, close;
    bool one_line;
    std::size_t next_close = 0;  // searched once for all that open before it
  };
  Environment environments[] = {
      {"$$", "$$", false}, {"\\[", "\\]", false}, {"$", "$", true}, {"\\(", "\\)", true}};
  std::size_t at = 0, line_end = 0;
  const auto line_end_after = [&](std::size_t from) {
    if (line_end < from) line_end = std::min(text.find('\n', from), text.size());
    return line_end;
  };
  const auto take = [&](Environment& e) {
    if (!text.substr(at).starts_with(e.open)) return false;
    const std::size_t begin = at + e.open.size();
    if (e.next_close < begin) e.next_close = text.find(e.close, begin);
    const std::size_t end = e.next_close;
    if (end == text.npos || end == begin) return false;
    if (e.one_line && line_end_after(begin) < end) return false;
    const std::string_view inside = text.substr(begin, end - begin);
    std::size_t after = end + e.close.size();
    std::size_t percent = text.find_first_not_of(' ', after);
    if (percent != text.npos && text.substr(percent).starts_with("\\%")) ++percent;
    const bool is_percent = percent != text.npos && text[percent] == '%';
    if (is_percent) after = percent + 1;
    out.push_back({at, after, std::string(inside) + (is_percent ? "%" : "")});
    at = after;
    return true;
  };
  while (at < text.size()) {
    if (text[at] == '\\' && at + 1 < text.size() && text[at + 1] == '$') {
      at += 2;
    } else if (!std::any_of(std::begin(environments), std::end(environments), take)) {
      ++at;
    }
  }
  static const PythonRegex fraction(
      R"(-?\\frac\{-?\d+(?:[.,]\d+)?\}\{-?\d+(?:[.,]\d+)?\}(?:\s*\\?%)?)", "bare fractions");
  for (const PythonRegex::Match& m : fraction.find_all(text)) {
    out.push_back({m.begin, m.end, std::string(m.text(text))});
  }
}

/// A number without its thousands separators, and with a point for a decimal comma.
inline std::string plain_number(std::string_view text) {
  static const PythonRegex thousands(R"(^-?\d{1,3}(?:[ ,]\d{3})+(?!\d))", "numbers");
  static const PythonRegex percent(R"(\s*(?:[Pp]ercent(?:age)?|[Pp]ct)$)", "numbers");
  std::string s = percent.substitute(text, "%");
  if (thousands.search(s)) {
    std::erase(s, ',');
    std::erase(s, ' ');
  }
  std::replace(s.begin(), s.end(), ',', '.');
  return s;
}

/// Of "2*(3+4) = 14" the run of digits and operators without what does not end an expression; empty
/// if that is no more than a number.
inline std::string_view trimmed_expression(std::string_view text, std::size_t begin,
                                           std::size_t end) {
  std::string_view run = text.substr(begin, end - begin);
  const std::size_t last = run.find_last_not_of(" \t\n.");
  run = run.substr(0, last + 1);
  static constexpr std::string_view kOperators[] = {"+", "-", "*", "/", "^", "(", ")", "×", "÷"};
  const std::size_t first_digit = run.find_first_of("0123456789");
  const bool works = std::any_of(std::begin(kOperators), std::end(kOperators), [&](auto symbol) {
    const std::size_t at = run.find(symbol, std::min(first_digit, run.size()));
    return at != run.npos && at + symbol.size() < run.size();
  });
  const std::size_t next = begin + run.size();
  const bool stands_alone =
      next >= text.size() || std::string_view(" \t\n.,:)$*").find(text[next]) != text.npos;
  return works && stands_alone ? run : std::string_view();
}

/// Adds numbers, and expressions of numbers, which stand at the begin, after white space or "=".
inline void find_expressions(std::string_view text, std::vector<MathTarget>& out) {
  static const PythonRegex start(R"((?:^|\s|=)(?:\*\*)?[$€£¥₹]?(?=[-(]{0,4}[\d.]))",
                                 "begins of numbers");
  static const PythonRegex number(
      R"((?:-?\d{1,3}(?:[ ,]\d{3})+(?!\d)(?:\.\d+)?|-?\d+[.,]\d+|\.\d+|-?\d+))"
      R"((?:\s*(?:%|[Pp]ercent(?:age)?|[Pp]ct))?)",
      "numbers");
  static const PythonRegex run(R"(-?\(?-?\d(?:[\d.\s+\-*/^()]|×|÷)*+)", "expressions");
  const auto add_all = [&](const PythonRegex& regex, const auto& target) {
    const std::vector<PythonRegex::Match> starts = start.find_all(text);
    std::size_t next = 0;
    for (const PythonRegex::Match& m : regex.find_all(text)) {
      while (next < starts.size() && starts[next].end < m.begin) ++next;
      if (next == starts.size() || starts[next].end != m.begin) continue;
      if (MathTarget t = target(m); !t.text.empty()) out.push_back(std::move(t));
    }
  };
  add_all(number, [&](const PythonRegex::Match& m) {
    return MathTarget{m.begin, m.end, plain_number(m.text(text))};
  });
  add_all(run, [&](const PythonRegex::Match& m) {
    const std::string_view found = trimmed_expression(text, m.begin, m.end);
    return MathTarget{m.begin, m.begin + found.size(), std::string(found)};
  });
}

/// Targets in order of preference: those that end last, of these the longest.
inline void sort_targets(std::vector<MathTarget>& targets) {
  std::stable_sort(targets.begin(), targets.end(), [](const MathTarget& a, const MathTarget& b) {
    return a.end != b.end ? a.end > b.end : a.begin < b.begin;
  });
}

/// Of targets sorted by their begin the first at byte `at` or later.
inline std::vector<MathTarget>::const_iterator first_from(const std::vector<MathTarget>& targets,
                                                          std::size_t at) {
  return std::lower_bound(targets.begin(), targets.end(), at,
                          [](const MathTarget& t, std::size_t from) { return t.begin < from; });
}

/// The targets (sorted by their begin) that begin where an anchor ends, and for "I hope" before
/// these words.
inline std::vector<MathTarget> targets_after(std::string_view text, const PythonRegex& anchor,
                                             const std::vector<MathTarget>& targets,
                                             std::string_view before = {}) {
  std::vector<MathTarget> out;
  for (const PythonRegex::Match& m : anchor.find_all(text)) {
    for (auto t = first_from(targets, m.end); t != targets.end() && t->begin <= m.end + 3; ++t) {
      const std::string_view between = text.substr(m.end, t->begin - m.end);
      if (between.find_first_not_of("$*(") != between.npos) continue;
      const std::string_view rest = text.substr(t->end, 2 + before.size());
      if (before.empty() || rest.find(before) != rest.npos) out.push_back(*t);
    }
  }
  return out;
}

/// For each anchor the first target within 50 bytes of its line, or the one after the last "="
/// within 100; none that "=" follows.
inline std::vector<MathTarget> targets_near(std::string_view text, const PythonRegex& anchor,
                                            std::vector<MathTarget> targets) {
  std::erase_if(targets, [&](const MathTarget& t) {
    const std::size_t next = text.find_first_not_of(" \n", t.end);
    return next != text.npos && text[next] == '=';
  });
  std::vector<MathTarget> out;
  for (const PythonRegex::Match& m : anchor.find_all(text)) {
    const std::size_t line_end = std::min(text.find('\n', m.end), text.size());
    const std::string_view line = text.substr(m.end, line_end - m.end);
    if (const std::size_t equals = line.substr(0, 101).rfind('='); equals != line.npos) {
      const auto t = first_from(targets, m.end + equals + 1);
      if (t != targets.end() && t->begin <= m.end + equals + 4) {
        out.push_back(*t);
        continue;
      }
    }
    const auto t = first_from(targets, m.end);
    if (t != targets.end() && t->begin <= std::min(m.end + 52, line_end)) out.push_back(*t);
  }
  return out;
}

}  // namespace detail

ESP_INLINE std::vector<std::string> extract_math(std::string_view text,
                                                 const MathTargets& targets) {
  static const PythonRegex final_answer(R"((?i)final answer is:?\s*)", "answers");
  static const PythonRegex final_words(R"((?i)final answer.{0,100}?\s+is:?\s*)", "answers");
  static const PythonRegex colon(R"((?i)answer\s?:)", "answers"), word("(?i)answer", "answers");
  const std::string valid = valid_text(text);
  std::vector<detail::MathTarget> all;
  if (targets.expressions) detail::find_expressions(valid, all);
  if (targets.latex) detail::find_latex(valid, all);
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end > b.end;
  });
  std::vector<std::vector<detail::MathTarget>> levels = {
      detail::targets_after(valid, final_answer, all, "I hope"),
      detail::targets_after(valid, final_words, all),
      {},
      detail::targets_near(valid, colon, all),
      detail::targets_near(valid, word, all),
      all};
  if (const std::optional<std::string> boxed = last_boxed(valid); boxed && targets.latex) {
    levels[targets.boxed_first ? 0 : 2].push_back({0, valid.size() + 1, *boxed});
  }
  std::vector<std::string> found;
  for (std::vector<detail::MathTarget>& level : levels) {
    detail::sort_targets(level);
    if (level.size() > 64) level.resize(64);
    for (const detail::MathTarget& t : level) {
      const bool has_value = MathValue::parse(t.text).has_value();
      if (has_value || found.empty()) found.push_back(t.text);
      if (has_value) return found;
    }
  }
  return found;
}

ESP_INLINE double math_match(std::string_view gold, const MathTargets& gold_targets,
                             std::string_view prediction, const MathTargets& targets,
                             int decimals) {
  std::vector<std::string> golds = extract_math(gold, gold_targets);
  if (golds.empty()) golds.emplace_back(gold);
  for (const std::string& p : extract_math(prediction, targets)) {
    for (const std::string& g : golds) {
      if (math_equal(g, p, decimals)) return 1;
    }
  }
  return 0;
}

}  // namespace espalier::eval::metrics
#endif
