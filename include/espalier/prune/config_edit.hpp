// SPDX-License-Identifier: Apache-2.0
// One number of a JSON text replaced in place: key order, spacing and the digits of every other
// value stay as they are, which reading and writing the whole text could not promise.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/config_edit.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/hub/checkpoint.hpp>

namespace espalier::prune {

namespace detail {
/// [begin, end) of the value of `key` in the outermost object; the text is valid JSON.
inline std::pair<std::size_t, std::size_t> value_span(std::string_view text, std::string_view key) {
  constexpr std::string_view kSpace = " \t\r\n";
  int depth = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{' || text[i] == '[') ++depth;
    if (text[i] == '}' || text[i] == ']') --depth;
    if (text[i] != '"') continue;
    std::size_t end = i + 1;
    while (end < text.size() && text[end] != '"') end += text[end] == '\\' ? 2 : 1;
    const std::string_view word = text.substr(i + 1, end - i - 1);
    const std::size_t colon = text.find_first_not_of(kSpace, end + 1);
    if (depth == 1 && word == key && colon != std::string_view::npos && text[colon] == ':') {
      const std::size_t begin = text.find_first_not_of(kSpace, colon + 1);
      return {begin, text.find_first_of(" \t\r\n,}", begin)};
    }
    i = end;
  }
  return {0, 0};
}
}  // namespace detail

/// @throws FormatError when the outermost object has no such key with an integer
[[nodiscard]] inline std::string with_integer(const std::string& text, const char* key,
                                              std::int64_t value, const std::string& source) {
  io::Json want = io::parse_json(text, source);
  (void)want.at(key).as_int();
  want[key] = value;
  const auto span = detail::value_span(text, key);
  std::string edited = text;
  edited.replace(span.first, span.second - span.first, std::to_string(value));
  if (span.second > span.first && io::parse_json(edited, source) == want) return edited;
  return io::dump(want, 2) + "\n";  // the key was written with escapes
}

/// config.json of `base` with `experts` under every key that names their number. Loaders differ in
/// which of two they read, so none may keep the old value.
[[nodiscard]] inline std::string pruned_config(const hub::Checkpoint& base, std::string text,
                                               std::int64_t experts) {
  const std::string source = (base.folder() / "config.json").string();
  for (const std::string& key : base.family().expert_keys) {
    const io::Json* v = hub::find_path(base.config_json(), key);
    if (v == nullptr || v->is_null()) continue;
    text = with_integer(text, key.c_str(), experts, source);
  }
  return text;
}

}  // namespace espalier::prune
