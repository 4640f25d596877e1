// SPDX-License-Identifier: Apache-2.0
// From what a model wrote to the answer that is compared: the filters of lm-evaluation-harness
// (its `filter_list`), in its words. A filter takes the responses to one question and returns as
// many, except for those that choose among them. GSM8K's two answers are
//   strict-match      regex  #### (\-?[0-9\.\,]+)              the first match
//   flexible-extract  regex  (-?[$0-9.,]{2,})|(-?[0-9]+)       the last one, group -1
// Patterns are Python's (python_regex.hpp). Filters by name, with their arguments:
//   regex               pattern, group (0 is the first match, -1 the last one; 0 where not given),
//                       fallback ("[invalid]" where not given)
//   multi_choice_regex  the same; ignore_case, ignore_punctuation ("true" or "false"); "ignore",
//                       a pattern, as often as needed
//   remove_whitespace, lowercase, uppercase
//   map                 one argument for each text; "default" (an empty text where not given)
//   take_first; take_first_k with k; majority_vote
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/metrics/answer_filter.hpp is host-only; include it from a .cpp"
#endif

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/eval/metrics/python_regex.hpp>
#include <espalier/eval/metrics/samples.hpp>

namespace espalier::eval::metrics {

inline constexpr std::string_view kInvalidAnswer = "[invalid]";
inline constexpr std::string_view kGsm8kStrict = R"(#### (\-?[0-9\.\,]+))";
inline constexpr std::string_view kGsm8kFlexible = R"((-?[$0-9.,]{2,})|(-?[0-9]+))";

/// Of all matches the one at `group`, counted from the end where negative; of a match with several
/// groups the first that is not empty; without white space at both ends.
struct RegexFilter {
  std::string pattern;
  int group = 0;
  std::string fallback = std::string(kInvalidAnswer);  // where nothing matches
};

/// The letter of a choice as "(B)": what the pattern finds; else the text of a choice, where the
/// response has it; else a letter after a colon.
struct ChoiceFilter {
  RegexFilter regex;
  bool ignore_case = false, ignore_punctuation = false;  // both for texts of choices only
  std::vector<std::string> ignore;                       // patterns, removed before such a search
};

class AnswerFilter {
 public:
  using Responses = std::vector<std::string>;
  using Arguments = std::vector<std::pair<std::string, std::string>>;  // (key, value)

  /// @param where names the filter in messages: `gsm8k.json: at "filters"[0]`
  /// @throws FormatError for an unknown name or argument, one that is missing, and for a pattern
  /// that does not compile
  [[nodiscard]] static AnswerFilter parse(std::string_view name, const Arguments& arguments,
                                          const std::string& where);
  [[nodiscard]] static AnswerFilter regex(const RegexFilter& filter, const std::string& where);
  [[nodiscard]] static AnswerFilter multi_choice(const ChoiceFilter& filter,
                                                 const std::string& where);
  /// What is no key becomes `otherwise`.
  [[nodiscard]] static AnswerFilter map(Arguments entries, std::string otherwise);
  [[nodiscard]] static AnswerFilter take_first(std::size_t count = 1);

  /// @param responses to one question; invalid UTF-8 is replaced by U+FFFD
  /// @param choices of the question, for multi_choice_regex
  /// @throws UsageError if there are fewer responses or choices than the filter needs
  [[nodiscard]] Responses apply(const Responses& responses,
                                std::span<const std::string> choices = {}) const {
    return apply_(responses, choices);
  }
  const std::string& name() const { return name_; }

 private:
  using Apply = std::function<Responses(const Responses&, std::span<const std::string>)>;
  AnswerFilter(std::string_view name, Apply apply) : name_(name), apply_(std::move(apply)) {}
  /// A filter of each response by itself.
  template <class Function>
  static AnswerFilter each(std::string_view name, Function&& function);

  std::string name_;
  Apply apply_;
};

/// The filters one after the other.
[[nodiscard]] AnswerFilter::Responses apply_filters(std::span<const AnswerFilter> filters,
                                                    AnswerFilter::Responses responses,
                                                    std::span<const std::string> choices = {});

}  // namespace espalier::eval::metrics

#ifdef ESP_BODIES
#include <algorithm>
#include <charconv>
#include <memory>
#include <numeric>

namespace espalier::eval::metrics {

namespace detail {

/// Of `count` matches the index that Python's list[group] reads; npos where there is none.
inline std::size_t match_at(std::size_t count, int group) {
  const auto n = static_cast<std::int64_t>(count);
  const std::int64_t at = group < 0 ? n + group : group;
  return at >= 0 && at < n ? static_cast<std::size_t>(at) : std::string::npos;
}

/// What `re.findall(...)[group]` of RegexFilter yields, stripped; `fallback` where nothing does.
inline std::string selected(const PythonRegex& regex, std::string_view text, int group,
                            const std::string& fallback) {
  const std::vector<PythonRegex::Match> matches = regex.find_all(text);
  const std::size_t at = match_at(matches.size(), group);
  if (at == std::string::npos) return fallback;
  const PythonRegex::Match& m = matches[at];
  std::string_view found = m.text(text);
  if (m.groups.size() == 1) found = m.groups[0];
  if (m.groups.size() > 1) {
    const auto group_with_text = std::find_if(m.groups.begin(), m.groups.end(),
                                              [](std::string_view g) { return !g.empty(); });
    if (group_with_text == m.groups.end()) return std::string(strip(fallback));
    found = *group_with_text;
  }
  return std::string(strip(found));
}

inline bool is_punctuation(char32_t c) {
  const utf8proc_category_t k = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return k >= UTF8PROC_CATEGORY_PC && k <= UTF8PROC_CATEGORY_PO;
}

/// The occurrence of a text of `choices` that a search from the left finds `group`-th, as the
/// index of the choice; of several at one place the longest, of equal ones the last.
class ChoiceTexts {
 public:
  explicit ChoiceTexts(std::vector<std::string> texts) : texts_(std::move(texts)) {
    order_.resize(texts_.size());
    std::iota(order_.begin(), order_.end(), std::size_t{0});
    std::stable_sort(order_.begin(), order_.end(), [&](std::size_t a, std::size_t b) {
      return texts_[a].size() != texts_[b].size() ? texts_[a].size() > texts_[b].size() : a > b;
    });
  }

  std::size_t find(std::string_view response, int group) const {
    std::vector<std::size_t> found;
    for (std::size_t at = 0; at < response.size();) {
      const auto hit = std::find_if(order_.begin(), order_.end(), [&](std::size_t i) {
        return !texts_[i].empty() && response.substr(at).starts_with(texts_[i]);
      });
      if (hit == order_.end()) {
        ++at;
        continue;
      }
      found.push_back(*hit);
      at += texts_[*hit].size();
    }
    const std::size_t at = match_at(found.size(), group);
    return at == std::string::npos ? at : found[at];
  }

 private:
  std::vector<std::string> texts_;
  std::vector<std::size_t> order_;
};

/// ChoiceFilter with compiled patterns.
class ChoiceSearch {
 public:
  ChoiceSearch(const ChoiceFilter& filter, const std::string& where)
      : filter_(filter), regex_(filter.regex.pattern, where) {
    for (const std::string& pattern : filter.ignore) ignore_.emplace_back(pattern, where);
  }

  AnswerFilter::Responses operator()(const AnswerFilter::Responses& responses,
                                     std::span<const std::string> choices) const {
    ESP_REQUIRE(!choices.empty() && choices.size() <= 26, UsageError,
                "multi_choice_regex needs 1 to 26 choices of a question, found ", choices.size());
    std::vector<std::string> texts;
    for (const std::string& choice : choices) texts.push_back(plain(strip(valid_text(choice))));
    const ChoiceTexts search(std::move(texts));
    AnswerFilter::Responses out;
    for (const std::string& r : responses) {
      out.push_back(letter(valid_text(r), search, choices.size()));
    }
    return out;
  }

 private:
  std::string letter(const std::string& response, const ChoiceTexts& texts,
                     std::size_t choices) const {
    const int group = filter_.regex.group;
    if (std::string found = selected(regex_, response, group, ""); !found.empty()) return found;
    const std::size_t choice = texts.find(plain(response), group);
    if (choice != std::string::npos) return {'(', static_cast<char>('A' + choice), ')'};
    const std::string found = selected(after_colon(choices), response, group, "");
    return found.empty() ? filter_.regex.fallback : "(" + found + ")";
  }

  static const PythonRegex& after_colon(std::size_t choices) {
    static const std::vector<PythonRegex> all = [] {
      std::vector<PythonRegex> patterns;  // for 1 to 26 choices
      for (char last = 'A'; last <= 'Z'; ++last) {
        patterns.emplace_back(std::string(":[\\s]*([A-") + last + "])", "multi_choice_regex");
      }
      return patterns;
    }();
    return all[choices - 1];
  }

  std::string plain(std::string_view text) const {
    std::string s(text);
    for (const PythonRegex& regex : ignore_) s = regex.substitute(s, "");
    if (filter_.ignore_case) s = lower(s);
    return filter_.ignore_punctuation ? without(s, is_punctuation) : s;
  }

  ChoiceFilter filter_;
  PythonRegex regex_;
  std::vector<PythonRegex> ignore_;
};

/// Reads a filter's arguments; what nobody asked for is refused.
class FilterArguments {
 public:
  FilterArguments(std::string_view name, const AnswerFilter::Arguments& arguments,
                  const std::string& where)
      : name_(name), where_(where), all_(arguments) {}

  std::string text(std::string_view key) {
    const std::vector<std::string> values = take(key);
    ESP_REQUIRE(values.size() == 1, FormatError, where_, ": the filter \"", name_,
                "\" needs one \"", key, "\", found ", values.size());
    return values[0];
  }
  std::string text(std::string_view key, std::string_view otherwise) {
    return has(key) ? text(key) : std::string(otherwise);
  }
  int number(std::string_view key) {
    const std::string s = text(key);
    int n = 0;
    const auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), n);
    ESP_REQUIRE(error == std::errc() && end == s.data() + s.size(), FormatError, where_, ": \"",
                key, "\" of the filter \"", name_, "\": expected an integer, found '", s, "'");
    return n;
  }
  bool flag(std::string_view key) {
    const std::string s = text(key, "false");
    ESP_REQUIRE(s == "true" || s == "false", FormatError, where_, ": \"", key,
                "\" of the filter \"", name_, "\": expected true or false, found '", s, "'");
    return s == "true";
  }
  std::vector<std::string> take(std::string_view key) {
    std::vector<std::string> values;
    std::erase_if(all_, [&](const auto& argument) {
      if (argument.first != key) return false;
      values.push_back(argument.second);
      return true;
    });
    return values;
  }
  AnswerFilter::Arguments rest() { return std::exchange(all_, {}); }
  void expect_none() const {
    ESP_REQUIRE(all_.empty(), FormatError, where_, ": \"", all_.empty() ? "" : all_[0].first,
                "\" is no argument of the filter \"", name_, "\"");
  }
  bool has(std::string_view key) const {
    return std::any_of(all_.begin(), all_.end(), [&](const auto& a) { return a.first == key; });
  }
  RegexFilter regex() {
    RegexFilter f;
    f.pattern = text("pattern");
    if (has("group")) f.group = number("group");
    f.fallback = text("fallback", f.fallback);
    return f;
  }

 private:
  std::string name_, where_;
  AnswerFilter::Arguments all_;
};

}  // namespace detail

template <class Function>
AnswerFilter AnswerFilter::each(std::string_view name, Function&& function) {
  return {name, [function](const Responses& responses, std::span<const std::string>) {
            Responses out;
            for (const std::string& r : responses) out.push_back(function(valid_text(r)));
            return out;
          }};
}

ESP_INLINE AnswerFilter AnswerFilter::regex(const RegexFilter& filter, const std::string& where) {
  return each("regex", [filter, regex = PythonRegex(filter.pattern, where)](const std::string& r) {
    return detail::selected(regex, r, filter.group, filter.fallback);
  });
}

ESP_INLINE AnswerFilter AnswerFilter::multi_choice(const ChoiceFilter& filter,
                                                   const std::string& where) {
  return {"multi_choice_regex", detail::ChoiceSearch(filter, where)};
}

ESP_INLINE AnswerFilter AnswerFilter::map(Arguments entries, std::string otherwise) {
  return each("map", [entries = std::move(entries), otherwise](const std::string& r) {
    const auto it = std::find_if(entries.rbegin(), entries.rend(),
                                 [&](const auto& entry) { return entry.first == r; });
    return it == entries.rend() ? otherwise : it->second;
  });
}

ESP_INLINE AnswerFilter AnswerFilter::take_first(std::size_t count) {
  const std::string name = count == 1 ? "take_first" : "take_first_k";
  return {name, [count, name](const Responses& responses, std::span<const std::string>) {
            ESP_REQUIRE(responses.size() >= count, UsageError, name, " needs ", count,
                        " responses to a question, found ", responses.size());
            return Responses(responses.begin(),
                             responses.begin() + static_cast<std::ptrdiff_t>(count));
          }};
}

ESP_INLINE AnswerFilter AnswerFilter::parse(std::string_view name, const Arguments& arguments,
                                            const std::string& where) {
  detail::FilterArguments given(name, arguments, where);
  const auto done = [&](AnswerFilter filter) {
    given.expect_none();
    return filter;
  };
  if (name == "regex") return done(regex(given.regex(), where));
  if (name == "multi_choice_regex") {
    ChoiceFilter f;
    f.regex = given.regex();
    f.ignore_case = given.flag("ignore_case");
    f.ignore_punctuation = given.flag("ignore_punctuation");
    f.ignore = given.take("ignore");
    return done(multi_choice(f, where));
  }
  if (name == "remove_whitespace") {
    return done(each(name, [](const std::string& r) { return std::string(strip(r)); }));
  }
  if (name == "lowercase") return done(each(name, [](const std::string& r) { return lower(r); }));
  if (name == "uppercase") return done(each(name, [](const std::string& r) { return upper(r); }));
  if (name == "map") {
    std::string otherwise = given.text("default", "");
    return map(given.rest(), std::move(otherwise));
  }
  if (name == "take_first") return done(take_first());
  if (name == "take_first_k") {
    const int k = given.number("k");
    ESP_REQUIRE(k > 0, FormatError, where, ": take_first_k: expected k above 0, found ", k);
    return done(take_first(static_cast<std::size_t>(k)));
  }
  ESP_REQUIRE(name == "majority_vote", FormatError, where, ": \"", name,
              "\" is no filter; there are regex, multi_choice_regex, remove_whitespace, lowercase, "
              "uppercase, map, take_first, take_first_k and majority_vote");
  return done({name, [](const Responses& responses, std::span<const std::string>) {
                 return Responses{most_frequent(responses)};
               }});
}

ESP_INLINE AnswerFilter::Responses apply_filters(std::span<const AnswerFilter> filters,
                                                 AnswerFilter::Responses responses,
                                                 std::span<const std::string> choices) {
  for (const AnswerFilter& f : filters) responses = f.apply(responses, choices);
  return responses;
}

}  // namespace espalier::eval::metrics
#endif
