// SPDX-License-Identifier: Apache-2.0
// Recognizes chat templates by comparing canonical forms. The canonical form of a Jinja text drops
// whitespace control, line layout, quotes, `a.b` versus `a['b']`, split string literals and the
// wording of errors. Blanks follow transformers' settings: trim_blocks and lstrip_blocks.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/template_source.hpp is host-only; include it from a .cpp"
#endif

#include <array>
#include <cctype>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace espalier::text {

namespace detail {

/// A string literal of the canonical form. Quotes and backslashes are escaped: otherwise a literal
/// could spell code.
inline std::string canonical_literal(std::string_view text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}
/// The text of what stands between the quotes of such a literal.
inline std::string literal_text(std::string_view inside) {
  std::string out;
  for (std::size_t i = 0; i < inside.size(); ++i) {
    if (inside[i] == '\\' && i + 1 < inside.size()) ++i;
    out += inside[i];
  }
  return out;
}

/// The tokens of one tag, without blanks.
class JinjaExpression {
 public:
  /// @param closer "%}" or "}}"; `end` becomes the position behind it, or npos if there is none
  JinjaExpression(std::string_view s, std::size_t pos, std::string_view closer, std::size_t& end,
                  bool& trims) {
    trims = false;
    while (pos < s.size()) {
      const char c = s[pos];
      trims = c == '-' && s.substr(pos + 1, 2) == closer;
      if (trims || s.substr(pos, 2) == closer) {
        end = pos + (trims ? 3 : 2);
        return;
      }
      if (std::isspace(static_cast<unsigned char>(c))) {
        ++pos;
      } else if (c == '\'' || c == '"') {
        tokens_.push_back(string_literal(s, pos));
      } else if (is_name_char(c)) {
        const std::size_t start = pos;
        while (pos < s.size() && is_name_char(s[pos])) ++pos;
        add_name(std::string(s.substr(start, pos - start)));
      } else {
        tokens_.emplace_back(1, c);
        ++pos;
      }
    }
    end = std::string_view::npos;
  }

  std::string canonical() {
    join_literals();
    std::string out;
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      const bool both_names =
          i > 0 && is_name_char(tokens_[i - 1].back()) && is_name_char(tokens_[i][0]);
      if (both_names) out += ' ';
      out += tokens_[i];
      if (tokens_[i] == "raise_exception") {  // only its wording differs
        while (i + 1 < tokens_.size() && tokens_[i] != ")") ++i;
      }
    }
    return out;
  }

 private:
  static bool is_name_char(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
  }
  /// `.name` is `['name']`.
  void add_name(std::string name) {
    if (tokens_.empty() || tokens_.back() != ".") {
      tokens_.push_back(std::move(name));
      return;
    }
    tokens_.back() = "[";
    tokens_.push_back("'" + name + "'");
    tokens_.emplace_back("]");
  }
  static std::string string_literal(std::string_view s, std::size_t& pos) {
    const char quote = s[pos++];
    std::string out;
    for (; pos < s.size() && s[pos] != quote; ++pos) {
      char c = s[pos];
      if (c == '\\' && pos + 1 < s.size()) {
        const char e = s[++pos];
        c = e == 'n' ? '\n' : e == 't' ? '\t' : e;
      }
      out += c;
    }
    if (pos < s.size()) ++pos;
    return canonical_literal(out);
  }
  static bool is_literal(const std::string& t) { return t[0] == '\''; }
  void join_literals() {
    std::vector<std::string> out;
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      const bool joins = tokens_[i] == "+" && !out.empty() && is_literal(out.back()) &&
                         i + 1 < tokens_.size() && is_literal(tokens_[i + 1]);
      if (!joins) {
        out.push_back(tokens_[i]);
        continue;
      }
      out.back().pop_back();
      out.back() += tokens_[++i].substr(1);
    }
    tokens_ = std::move(out);
  }

  std::vector<std::string> tokens_;
};

inline std::string trimmed(std::string s, bool left, bool right) {
  constexpr const char* kBlanks = " \t\r\n";
  if (right) s.erase(s.find_last_not_of(kBlanks) + 1);
  if (left) s.erase(0, s.find_first_not_of(kBlanks));
  return s;
}

/// The literal text outside of tags, after the tags' whitespace control.
inline std::string template_data(std::string data, std::string_view tag, bool after_trim,
                                 bool after_block, bool first) {
  const bool block = tag.substr(0, 2) == "{%" || tag.substr(0, 2) == "{#";
  const bool trim_right = tag.size() > 2 && tag[2] == '-';
  if (after_block && !after_trim && !data.empty() && data[0] == '\n') data.erase(0, 1);
  data = trimmed(std::move(data), after_trim, trim_right);
  if (block && !trim_right) {
    const std::size_t line = data.find_last_not_of(" \t");
    const bool starts_line = line == std::string::npos ? first || after_block : data[line] == '\n';
    if (starts_line) data.erase(line == std::string::npos ? 0 : line + 1);
  }
  return data;
}

/// nullopt for text that does not parse.
inline std::optional<std::string> canonical_template(std::string_view s) {
  if (!s.empty() && s.back() == '\n') s.remove_suffix(1);
  std::string out;
  bool after_trim = false, after_block = false;
  for (std::size_t pos = 0;;) {
    std::size_t tag = pos;
    while (tag < s.size() &&
           !(s[tag] == '{' && tag + 1 < s.size() &&
             std::string_view("%{#").find(s[tag + 1]) != std::string_view::npos)) {
      ++tag;
    }
    const std::string data = template_data(std::string(s.substr(pos, tag - pos)), s.substr(tag),
                                           after_trim, after_block, pos == 0);
    if (!data.empty()) out += "{{" + canonical_literal(data) + "}}";
    if (tag >= s.size()) return out;
    const char kind = s[tag + 1];
    after_block = kind != '{';
    if (kind == '#') {
      const std::size_t end = s.find("#}", tag + 2);
      if (end == std::string_view::npos) return std::nullopt;
      after_trim = s[end - 1] == '-';
      pos = end + 2;
      continue;
    }
    const bool marked = tag + 2 < s.size() && s[tag + 2] == '-';
    JinjaExpression inside(s, tag + (marked ? 3 : 2), kind == '{' ? "}}" : "%}", pos, after_trim);
    if (pos == std::string_view::npos) return std::nullopt;
    out += std::string("{") + kind + inside.canonical() + (kind == '{' ? "}}" : "%}");
  }
}

}  // namespace detail

struct KnownTemplate {
  int index = 0;  // 0 ChatML, 1 Mixtral of December 2023, 2 Mixtral "v1"
  std::optional<std::string> default_system;
};

namespace detail {

inline constexpr std::string_view kSystemMark = "\x01";

inline constexpr std::string_view kChatMlSystem =
    "{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\n\x01<|im_end|>\n' }}{% endif %}";
inline constexpr std::string_view kChatMlTurn =
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

inline constexpr std::string_view kMixtralTurns =
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('role') }}{% endif %}{% endfor %}";
inline constexpr std::string_view kMixtralV1System =
    "{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}"
    "{% set loop_messages = messages[1:] %}{% else %}{% set loop_messages = messages %}{% endif %}";
inline constexpr std::string_view kMixtralV1Turns =
    "{% if message['role'] == 'user' %}{% if loop.first and system_message is defined %}"
    "{{ ' [INST] ' + system_message + '\n\n' + message['content'] + ' [/INST]' }}{% else %}"
    "{{ ' [INST] ' + message['content'] + ' [/INST]' }}{% endif %}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + message['content'] + eos_token }}"
    "{% else %}{{ raise_exception('role') }}{% endif %}{% endfor %}";
inline constexpr std::string_view kAlternation =
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('order') }}{% endif %}";

inline std::string chatml_source(bool default_system) {
  return std::string("{% for message in messages %}")
      .append(default_system ? kChatMlSystem : "")
      .append(kChatMlTurn);
}
inline std::string mixtral_source(bool v1) {
  const std::string loop = std::string("{{ bos_token }}{% for message in ") +
                           (v1 ? "loop_messages" : "messages") + " %}";
  return std::string(v1 ? kMixtralV1System : "")
      .append(loop)
      .append(kAlternation)
      .append(v1 ? kMixtralV1Turns : kMixtralTurns);
}

}  // namespace detail

/// The known template that this Jinja text is equivalent to, if any.
inline std::optional<KnownTemplate> recognise_template(std::string_view source) {
  std::optional<std::string> form = detail::canonical_template(source);
  if (!form) return std::nullopt;
  constexpr std::string_view kPreamble =
      "{%if not add_generation_prompt is defined%}{%set add_generation_prompt=false%}{%endif%}";
  if (form->compare(0, kPreamble.size(), kPreamble) == 0) form->erase(0, kPreamble.size());

  KnownTemplate known;
  constexpr std::string_view kBefore = "{{'<|im_start|>system\n", kAfter = "<|im_end|>\n'}}";
  if (const std::size_t before = form->find(kBefore); before != std::string::npos) {
    const std::size_t start = before + kBefore.size(), end = form->find(kAfter, start);
    if (end == std::string::npos) return std::nullopt;
    known.default_system = detail::literal_text(form->substr(start, end - start));
    form->replace(start, end - start, detail::kSystemMark);
  }
  const std::array<std::string, 3> sources = {
      detail::chatml_source(known.default_system.has_value()), detail::mixtral_source(false),
      detail::mixtral_source(true)};
  for (; known.index < static_cast<int>(sources.size()); ++known.index) {
    if (form == detail::canonical_template(sources[known.index])) return known;
  }
  return std::nullopt;
}

}  // namespace espalier::text
