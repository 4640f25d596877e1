// SPDX-License-Identifier: Apache-2.0
// Texts made from the columns of a row: "Question: {question|strip}\nAnswer:". A placeholder names
// a column, or a value within one by dots ("choices.text"; a number is a position in a list), then
// any number of functions. `a?b` takes the first column that the row has. "{{" and "}}" are braces.
//
//   strip, lstrip        without white space at both ends, or at the left
//   before:X, after:X    what stands before or after the first X; before_last, after_last: the last
//   replace:A=B          B for each A
//   chop                 without the last character
//   lower_first          the first letter in lower case (ASCII)
//   capitalize           the first letter in upper case, all others in lower case (ASCII)
//   map:A=B,C=D          B for A, D for C
//   clean_wikihow        HellaSwag's: " [title]" becomes ". ", what stands in brackets goes, two
//                        spaces become one, white space at the ends goes
//   last_boxed           X of the last \boxed{X}, MATH's answers
//   detokenize_wikitext  WikiText's text as it was written: " , " is ", ", " @-@ " is "-", ...
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/row_template.hpp is host-only; include it from a .cpp"
#endif

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include <espalier/io/json.hpp>

namespace espalier::eval {

class RowTemplate {
 public:
  RowTemplate() = default;
  /// @param where named in messages, as "tasks.json: arc_easy: prompt"
  /// @throws FormatError for a brace without its like, and for an unknown function
  RowTemplate(std::string_view text, const std::string& where);

  /// @throws FormatError naming the row, the column, and the columns that there are
  [[nodiscard]] std::string render(const io::Json& row) const;
  /// Of a template that is one placeholder and no more: one text for each item of its list.
  [[nodiscard]] std::vector<std::string> render_list(const io::Json& row) const;
  /// The value of a template that is one placeholder without functions; `text` if it has some.
  [[nodiscard]] const io::Json& value(const io::Json& row) const;

  bool is_placeholder() const {
    return pieces_.size() == 1 && std::holds_alternative<Placeholder>(pieces_[0]);
  }

 private:
  struct Function {
    std::string name, argument;
  };
  struct Placeholder {
    std::vector<std::string> paths;  // the first that is there
    std::vector<Function> functions;
  };

  Placeholder parse_placeholder(std::string_view inside) const;
  const io::Json& find(const Placeholder& p, const io::Json& row) const;
  std::string apply(const Placeholder& p, const io::Json& value) const;

  std::vector<std::variant<std::string, Placeholder>> pieces_;
  std::string where_;
};

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <algorithm>
#include <charconv>
#include <optional>

#include <espalier/eval/metrics/math_answer.hpp>
#include <espalier/eval/wikitext.hpp>

namespace espalier::eval {

namespace detail {

inline constexpr std::string_view kWhiteSpace = " \t\n\v\f\r";

inline std::string stripped(std::string_view s, bool right = true) {
  const std::size_t first = s.find_first_not_of(kWhiteSpace);
  if (first == s.npos) return {};
  const std::size_t last = right ? s.find_last_not_of(kWhiteSpace) : s.size() - 1;
  return std::string(s.substr(first, last - first + 1));
}

inline std::string clean_wikihow(std::string_view text) {
  const std::string s = with_all_replaced(stripped(text), " [title]", ". ");
  std::string out;
  for (std::size_t at = 0; at < s.size();) {
    const std::size_t open = s.find('[', at), close = s.find(']', std::min(open, s.size()));
    const bool on_a_line = close != s.npos && s.substr(open, close - open).find('\n') == s.npos;
    if (open == s.npos || close == s.npos) {
      out += s.substr(at);
      break;
    }
    out += s.substr(at, open - at + (on_a_line ? 0 : 1));
    at = on_a_line ? close + 1 : open + 1;
  }
  return with_all_replaced(out, "  ", " ");
}

inline char lower(char c) {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}
inline char upper(char c) {
  return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
}

inline std::string capitalized(std::string s) {
  std::transform(s.begin(), s.end(), s.begin(), lower);
  if (!s.empty()) s[0] = upper(s[0]);
  return s;
}

/// "cause=because,effect=therefore"
inline std::string mapped(const std::string& key, std::string_view pairs) {
  for (std::size_t at = 0; at <= pairs.size();) {
    const std::size_t end = std::min(pairs.find(',', at), pairs.size());
    const std::string_view pair = pairs.substr(at, end - at);
    const std::size_t equals = pair.find('=');
    if (equals != pair.npos && pair.substr(0, equals) == key) {
      return std::string(pair.substr(equals + 1));
    }
    at = end + 1;
  }
  throw FormatError(espalier::detail::concat({"\"", key, "\" is none of ", pairs}));
}

inline std::string without_last_character(std::string s) {
  while (!s.empty()) {
    const auto last = static_cast<unsigned char>(s.back());
    s.pop_back();
    if ((last & 0xc0) != 0x80) break;  // the first byte of a UTF-8 character
  }
  return s;
}

using TextFunction = std::string (*)(const std::string& text, const std::string& argument);

struct NamedFunction {
  std::string_view name;
  TextFunction call;
};
inline constexpr NamedFunction kTextFunctions[] = {
    {"strip", [](const std::string& s, const std::string&) { return stripped(s); }},
    {"lstrip", [](const std::string& s, const std::string&) { return stripped(s, false); }},
    {"before", [](const std::string& s, const std::string& x) { return s.substr(0, s.find(x)); }},
    {"after",
     [](const std::string& s, const std::string& x) {
       const std::size_t at = s.find(x);
       return at == s.npos ? std::string() : s.substr(at + x.size());
     }},
    {"before_last",
     [](const std::string& s, const std::string& x) { return s.substr(0, s.rfind(x)); }},
    {"after_last",
     [](const std::string& s, const std::string& x) {
       const std::size_t at = s.rfind(x);
       return at == s.npos ? std::string() : s.substr(at + x.size());
     }},
    {"chop", [](const std::string& s, const std::string&) { return without_last_character(s); }},
    {"lower_first", [](const std::string& s,
                       const std::string&) { return s.empty() ? s : lower(s[0]) + s.substr(1); }},
    {"capitalize", [](const std::string& s, const std::string&) { return capitalized(s); }},
    {"map", [](const std::string& s, const std::string& pairs) { return mapped(s, pairs); }},
    {"replace",
     [](const std::string& s, const std::string& pair) {
       const std::size_t equals = std::min(pair.find('='), pair.size());
       if (equals == 0 || equals == pair.size()) return s;
       return with_all_replaced(s, pair.substr(0, equals), pair.substr(equals + 1));
     }},
    {"clean_wikihow", [](const std::string& s, const std::string&) { return clean_wikihow(s); }},
    {"last_boxed",
     [](const std::string& s, const std::string&) {
       const std::optional<std::string> boxed = metrics::last_boxed(s);
       if (!boxed) throw FormatError("no \\boxed{...} in the text");
       return *boxed;
     }},
    {"detokenize_wikitext",
     [](const std::string& s, const std::string&) { return detokenize_wikitext(s); }},
};

inline TextFunction text_function(std::string_view name) {
  for (const NamedFunction& f : kTextFunctions) {
    if (f.name == name) return f.call;
  }
  return nullptr;
}

inline std::vector<std::string> split_at(std::string_view text, char at) {
  std::vector<std::string> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t end = std::min(text.find(at, begin), text.size());
    parts.emplace_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

/// The value at "choices.text.0", or null.
inline const io::Json* value_at(const io::Json& row, const std::string& path) {
  const io::Json* at = &row;
  for (const std::string& step : split_at(path, '.')) {
    std::size_t position = 0;
    const auto number = std::from_chars(step.data(), step.data() + step.size(), position);
    if (at->is_array()) {
      const bool is_number = number.ec == std::errc() && number.ptr == step.data() + step.size();
      if (!is_number || position >= at->items().size()) return nullptr;
      at = &at->items()[position];
    } else {
      at = at->is_object() ? at->find(step) : nullptr;
    }
    if (at == nullptr) return nullptr;
  }
  return at;
}

inline std::string columns_of(const io::Json& row) {
  std::string names;
  for (const io::Json::Member& m : row.members()) names += (names.empty() ? "" : ", ") + m.key;
  return names.empty() ? "none" : names;
}

}  // namespace detail

ESP_INLINE RowTemplate::RowTemplate(std::string_view text, const std::string& where)
    : where_(where) {
  std::string plain;
  for (std::size_t at = 0; at < text.size(); ++at) {
    const bool twice = at + 1 < text.size() && text[at + 1] == text[at];
    if ((text[at] == '{' || text[at] == '}') && twice) {
      plain += text[at++];
    } else if (text[at] == '{') {
      const std::size_t end = text.find('}', at);
      ESP_REQUIRE(end != text.npos, FormatError, where_, ": \"{\" at ", at, " has no \"}\"");
      if (!plain.empty()) pieces_.emplace_back(std::exchange(plain, {}));
      pieces_.emplace_back(parse_placeholder(text.substr(at + 1, end - at - 1)));
      at = end;
    } else {
      ESP_REQUIRE(text[at] != '}', FormatError, where_, ": \"}\" at ", at, " has no \"{\"");
      plain += text[at];
    }
  }
  if (!plain.empty()) pieces_.emplace_back(std::move(plain));
}

ESP_INLINE RowTemplate::Placeholder RowTemplate::parse_placeholder(std::string_view inside) const {
  const std::vector<std::string> parts = detail::split_at(inside, '|');
  Placeholder p;
  p.paths = detail::split_at(parts[0], '?');
  for (const std::string& path : p.paths) {
    ESP_REQUIRE(!path.empty(), FormatError, where_, ": \"{", inside, "}\" names no column");
  }
  for (std::size_t i = 1; i < parts.size(); ++i) {
    const std::size_t colon = std::min(parts[i].find(':'), parts[i].size());
    p.functions.push_back({parts[i].substr(0, colon),
                           colon < parts[i].size() ? parts[i].substr(colon + 1) : std::string()});
    ESP_REQUIRE(detail::text_function(p.functions.back().name) != nullptr, FormatError, where_,
                ": \"", p.functions.back().name, "\" in \"{", inside, "}\" is no known function");
  }
  return p;
}

ESP_INLINE const io::Json& RowTemplate::find(const Placeholder& p, const io::Json& row) const {
  ESP_REQUIRE(row.is_object(), FormatError, row.where(), ": expected an object, found ",
              row.kind_name());
  for (const std::string& path : p.paths) {
    if (const io::Json* found = detail::value_at(row, path)) return *found;
  }
  throw FormatError(
      espalier::detail::concat({row.where(), ": ", where_, " needs the column \"", p.paths[0],
                                "\"; the row has ", detail::columns_of(row)}));
}

ESP_INLINE std::string RowTemplate::apply(const Placeholder& p, const io::Json& value) const {
  const bool number = value.is_number();
  std::string text = number ? io::dump(value) : value.as_string();
  try {
    for (const Function& f : p.functions) text = detail::text_function(f.name)(text, f.argument);
  } catch (const FormatError& e) {
    throw FormatError(espalier::detail::concat({value.where(), ": ", where_, ": ", e.what()}));
  }
  return text;
}

ESP_INLINE std::string RowTemplate::render(const io::Json& row) const {
  std::string out;
  for (const auto& piece : pieces_) {
    if (const auto* plain = std::get_if<std::string>(&piece)) {
      out += *plain;
    } else {
      const auto& p = std::get<Placeholder>(piece);
      out += apply(p, find(p, row));
    }
  }
  return out;
}

ESP_INLINE std::vector<std::string> RowTemplate::render_list(const io::Json& row) const {
  const auto& p = std::get<Placeholder>(pieces_.at(0));
  std::vector<std::string> out;
  for (const io::Json& item : find(p, row).items()) out.push_back(apply(p, item));
  return out;
}

ESP_INLINE const io::Json& RowTemplate::value(const io::Json& row) const {
  return find(std::get<Placeholder>(pieces_.at(0)), row);
}

}  // namespace espalier::eval
#endif
