// SPDX-License-Identifier: Apache-2.0
// Replaces values inside a JSON text: key order, spacing and the digits of all other values stay,
// which parsing and writing the whole text could not promise. Then the values of a config.json that
// change with the experts: their number under each of its keys, patterns that name experts by
// number, multi-token prediction.
#pragma once

#ifdef __CUDACC__
#error "espalier/prune/config_edit.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <map>

#include <espalier/io/json_dump.hpp>
#include <espalier/prune/pruned_tensor.hpp>

namespace espalier::prune {

namespace detail {

/// Walks a valid JSON text beside its parsed value and the value that it is to become.
class JsonPatch {
 public:
  explicit JsonPatch(std::string_view text) : text_(text) {}

  std::string apply(const io::Json& before, const io::Json& want) {
    at_ = skipped(0);
    std::string out(text_.substr(0, at_));
    out += value(before, want);
    return out += text_.substr(at_);
  }

 private:
  struct Child {
    std::size_t begin = 0, value = 0;  // of the key, in an object, and of the value
  };

  std::size_t skipped(std::size_t i) const {
    while (i < text_.size() && std::string_view(" \t\r\n").find(text_[i]) != std::string_view::npos)
      ++i;
    return i;
  }
  /// The end of the value or key that begins at `i`.
  std::size_t end_of(std::size_t i) const {
    int depth = 0;
    for (; i < text_.size(); ++i) {
      const char c = text_[i];
      if (c == '"') {
        for (++i; i < text_.size() && text_[i] != '"'; ++i) i += text_[i] == '\\';
        if (depth == 0) return i + 1;
      } else if (c == '{' || c == '[') {
        ++depth;
      } else if (c == '}' || c == ']') {
        if (depth == 0) return i;
        if (--depth == 0) return i + 1;
      } else if (depth == 0 && std::string_view(", \t\r\n").find(c) != std::string_view::npos) {
        return i;
      }
    }
    return i;
  }

  /// Writes `want` and moves `at_` behind the value that it replaces.
  std::string value(const io::Json& before, const io::Json& want) {
    const std::size_t begin = at_;
    at_ = end_of(begin);
    if (before == want) return std::string(text_.substr(begin, at_ - begin));
    const bool both =
        (before.is_object() && want.is_object()) || (before.is_array() && want.is_array());
    if (!both) return io::dump_python(want);
    const std::size_t end = at_;
    std::string text = container(begin, end, before, want);
    at_ = end;
    return text;
  }

  std::string container(std::size_t begin, std::size_t end, const io::Json& before,
                        const io::Json& want) {
    std::vector<Child> children;
    for (std::size_t i = skipped(begin + 1); i < end - 1;) {
      Child child{i, i};
      if (before.is_object()) child.value = skipped(skipped(end_of(i)) + 1);  // past the colon
      children.push_back(child);
      i = skipped(end_of(child.value));
      if (i < end - 1) i = skipped(i + 1);  // past the comma
    }
    if (children.size() != before.size()) return io::dump_python(want);
    bool same_places = before.size() == want.size();
    for (std::size_t i = 0; same_places && before.is_object() && i < children.size(); ++i) {
      same_places = before.members()[i].key == want.members()[i].key;
    }
    std::string out;
    if (same_places) {
      std::size_t done = begin;
      for (std::size_t i = 0; i < children.size(); ++i) {
        out += text_.substr(done, children[i].value - done);
        at_ = children[i].value;
        out += before.is_object() ? value(before.members()[i].value, want.members()[i].value)
                                  : value(before.items()[i], want.items()[i]);
        done = at_;
      }
      return out + std::string(text_.substr(done, end - done));
    }
    // Children were removed: the spacing between the others is that of the first two.
    const std::size_t first = children.empty() ? begin + 1 : children[0].begin;
    const std::string lead(text_.substr(begin + 1, first - begin - 1));
    std::string gap = "," + lead, tail;
    if (!children.empty()) {
      const std::size_t last = end_of(children.back().value);
      tail = text_.substr(last, end - 1 - last);
    }
    if (children.size() > 1) {
      const std::size_t to = end_of(children[0].value);
      gap = text_.substr(to, children[1].begin - to);
    }
    for (std::size_t i = 0; i < want.size(); ++i) {
      out += i == 0 ? lead : gap;
      out += want.is_object() ? io::dump_python(io::Json(want.members()[i].key)) + ": " +
                                    io::dump_python(want.members()[i].value)
                              : io::dump_python(want.items()[i]);
    }
    return text_[begin] + (want.size() == 0 ? "" : out + tail) + text_[end - 1];
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

/// The value under a path of keys, which must exist, for writing.
inline io::Json& value_at(io::Json& json, std::string_view path) {
  const std::size_t dot = path.find('.');
  if (dot == std::string_view::npos) return json[path];
  return value_at(json[path.substr(0, dot)], path.substr(dot + 1));
}

}  // namespace detail

/// `text`, which parses to `before`, changed to parse to `want`: only differing values are written.
[[nodiscard]] inline std::string edited_json(const std::string& text, const io::Json& before,
                                             const io::Json& want) {
  std::string edited = detail::JsonPatch(text).apply(before, want);
  if (io::parse_json(edited, "edited") == want) return edited;
  return io::dump(want, 2) + "\n";  // a key stood twice
}

/// @throws FormatError when there is no such key with an integer; a dot leads into an object
[[nodiscard]] inline std::string with_integer(const std::string& text, std::string_view path,
                                              std::int64_t value, const std::string& source) {
  const io::Json before = io::parse_json(text, source);
  const io::Json* found = hub::find_path(before, path);
  ESP_REQUIRE(found != nullptr, FormatError, source, ": \"", path, "\" is missing");
  (void)found->as_int();
  io::Json want = before;
  detail::value_at(want, path) = value;
  return edited_json(text, before, want);
}

/// Patterns of modules that name experts by number, as lists of quantization_config do:
///   model.layers.0.mlp.experts.3.down_proj, re:.*layers\.0\..*experts\.3\..*  one layer's expert 3
///   block_sparse_moe.experts.3.w1, re:.*experts\.3\..*                        expert 3 of all
///   layers
/// Patterns of dropped experts are removed, the others get the new number.
class ExpertPatterns {
 public:
  ExpertPatterns(const hub::Checkpoint& base, const Plan& plan, std::string source)
      : base_(base), plan_(plan), source_(std::move(source)) {}

  /// Edits strings in arrays, and keys, at any depth.
  /// @throws UnsupportedError for a pattern that would need another number in each layer
  io::Json renumbered(const io::Json& v) const {
    if (!v.is_array() && !v.is_object()) return v;
    std::vector<Item> items;
    if (v.is_array()) {
      for (const io::Json& item : v.items()) {
        items.push_back(item.is_string() ? Item{item.as_string(), {}} : Item{"", renumbered(item)});
      }
    } else {
      for (const io::Json::Member& m : v.members()) items.push_back({m.key, renumbered(m.value)});
    }
    io::Json out = v.is_array() ? io::Json::array() : io::Json::object();
    for (const std::optional<Item>& item : kept(items)) {
      if (!item) continue;
      if (v.is_object()) {
        out[item->pattern] = item->value;
      } else {
        out.push_back(item->pattern.empty() ? item->value : io::Json(item->pattern));
      }
    }
    return out;
  }

 private:
  struct Item {
    std::string pattern;
    io::Json value;
  };
  struct Number {
    int value = -1;
    std::size_t begin = 0, end = 0;
  };

  static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
  }

  /// The number behind the path component `word`; a dot may be escaped.
  Number number_behind(std::string_view text, std::string_view word) const {
    for (std::size_t at = text.find(word); at != std::string_view::npos;
         at = text.find(word, at + 1)) {
      if (at > 0 && is_word(text[at - 1])) continue;  // shared_experts
      std::string_view rest = text.substr(at + word.size());
      if (rest.starts_with('\\')) rest.remove_prefix(1);
      if (!rest.starts_with('.')) continue;
      rest.remove_prefix(1);
      Number n;
      n.begin = text.size() - rest.size();
      refuse_choice(text, rest);
      n.value = espalier::detail::take_number(rest);
      n.end = text.size() - rest.size();
      if (n.value < 0) continue;
      const bool whole =
          rest.empty() || std::string_view(".\\$)/:").find(rest[0]) != std::string_view::npos;
      if (!whole) refuse(text, "names experts by the beginning of a number");
      return n;
    }
    return {};
  }
  /// (3|5), [35]: more than one number, in an expression that would have to be rewritten.
  void refuse_choice(std::string_view text, std::string_view rest) const {
    if (!rest.starts_with('(') && !rest.starts_with('[')) return;
    const std::string_view choice = rest.substr(0, rest.find(rest[0] == '(' ? ')' : ']'));
    const bool any = choice.find("0-9") != std::string_view::npos ||
                     choice.find_first_of("0123456789") == std::string_view::npos;
    if (!any) refuse(text, "chooses between numbers");
  }
  [[noreturn]] void refuse(std::string_view pattern, const char* why) const {
    throw UnsupportedError(espalier::detail::concat(
        {source_, ": pattern \"", pattern, "\" ", why,
         "; write it out, an entry per layer and expert, to prune this checkpoint"}));
  }

  /// The entry of the plan for the layer that a pattern names; none where the plan has none.
  const std::vector<int>* kept_in(std::string_view pattern, int layer) const {
    while (pattern.starts_with("re:") || pattern.starts_with("+:") || pattern.starts_with("-:") ||
           pattern.starts_with(".*")) {
      pattern.remove_prefix(pattern.starts_with("re:") ? 3 : 2);
    }
    if (pattern.starts_with('^')) pattern.remove_prefix(1);
    return kept_of(base_.mixture(), {.layer = layer, .mtp = base_.expert_names().is_mtp(pattern)},
                   plan_);
  }

  static std::string with_number(const std::string& text, const Number& n, int value) {
    return text.substr(0, n.begin) + std::to_string(value) + text.substr(n.end);
  }

  std::vector<std::optional<Item>> kept(const std::vector<Item>& items) const {
    std::vector<std::optional<Item>> out(items.begin(), items.end());
    std::map<std::string, std::map<int, std::size_t>>
        of_all_layers;  // by what is around the number
    for (std::size_t i = 0; i < items.size(); ++i) {
      const std::string& pattern = items[i].pattern;
      const Number expert = number_behind(pattern, "experts");
      if (expert.value < 0) continue;
      const int layer = number_behind(pattern, "layers").value;
      if (layer < 0) {
        of_all_layers[with_number(pattern, expert, 0)][expert.value] = i;
        continue;
      }
      const std::vector<int>* kept = kept_in(pattern, layer);
      if (kept == nullptr) continue;
      const auto it = std::lower_bound(kept->begin(), kept->end(), expert.value);
      if (it == kept->end() || *it != expert.value) {
        out[i].reset();
      } else {
        out[i]->pattern = with_number(pattern, expert, static_cast<int>(it - kept->begin()));
      }
    }
    for (const auto& [around, by_expert] : of_all_layers) renumber_group(items, by_expert, out);
    return out;
  }

  /// Patterns that differ in the expert's number alone and hold for every layer: the pattern of a
  /// new number is kept if the expert with that number was named in each layer, and removed if it
  /// was named in none.
  void renumber_group(const std::vector<Item>& items, const std::map<int, std::size_t>& by_expert,
                      std::vector<std::optional<Item>>& out) const {
    std::vector<std::pair<int, const Item*>> stay;
    for (std::int64_t k = 0; k < kept_count(plan_); ++k) {
      const Item* first = nullptr;
      std::size_t named = 0, layers = 0;
      for (const std::vector<int>& layer : plan_.keep) {
        if (layer.empty()) continue;
        ++layers;
        const auto it = by_expert.find(layer[static_cast<std::size_t>(k)]);
        if (it == by_expert.end()) continue;
        const Item& item = items[it->second];
        if (first != nullptr && !(first->value == item.value))
          refuse(item.pattern,
                 "stands for another value than that of another expert that gets its "
                 "number in another layer");
        first = &item;
        ++named;
      }
      if (named == layers && first != nullptr) stay.emplace_back(static_cast<int>(k), first);
      if (named != layers && named > 0)
        refuse(first->pattern, "counts in all layers, but the plan keeps the expert in some only");
    }
    std::vector<std::size_t> places;
    for (const auto& [expert, i] : by_expert) places.push_back(i);
    std::sort(places.begin(), places.end());
    for (std::size_t j = 0; j < places.size(); ++j) {
      if (j >= stay.size()) {
        out[places[j]].reset();
        continue;
      }
      const std::string& pattern = stay[j].second->pattern;
      out[places[j]] = Item{with_number(pattern, number_behind(pattern, "experts"), stay[j].first),
                            stay[j].second->value};
    }
  }

  const hub::Checkpoint& base_;
  const Plan& plan_;
  std::string source_;
};

/// config.json of `base` after the plan. Changes the number of experts under every key that holds
/// it (loaders differ in which of two they read), patterns, and the number of multi-token
/// prediction layers where these are left out.
[[nodiscard]] inline std::string pruned_config(const hub::Checkpoint& base, const Plan& plan,
                                               const std::string& text) {
  const std::string source = (base.folder() / "config.json").string();
  const io::Json before = io::parse_json(text, source);
  io::Json want = before;
  for (const std::string& key : base.count_keys()) {
    detail::value_at(want, key) = kept_count(plan);
  }
  for (const char* place : {"", "text_config."}) {
    for (const char* key : {"quantization_config", "compression_config"}) {
      const std::string path = std::string(place) + key;
      const io::Json* v = hub::find_path(before, path);
      if (v == nullptr || !v->is_object()) continue;
      detail::value_at(want, path) = ExpertPatterns(base, plan, v->where()).renumbered(*v);
    }
    if (!leaves_prediction_out(base.mixture(), plan)) continue;
    for (const char* key : {"num_nextn_predict_layers", "num_mtp_layers", "mtp_num_hidden_layers",
                            "num_mtp_modules"}) {
      const std::string path = std::string(place) + key;
      const io::Json* v = hub::find_path(before, path);
      if (v != nullptr && v->is_integer()) detail::value_at(want, path) = 0;
    }
  }
  return edited_json(text, before, want);
}

/// Files beside config.json in which quantizers repeat their settings and patterns.
[[nodiscard]] inline bool has_patterns(const std::string& file) {
  return file == "hf_quant_config.json" || file == "quantize_config.json" ||
         file == "quant_config.json";
}
/// Text of such a file after the plan.
[[nodiscard]] inline std::string pruned_patterns(const hub::Checkpoint& base, const Plan& plan,
                                                 const std::string& file) {
  const std::filesystem::path path = base.folder() / file;
  const std::string text = io::read_text(path);
  const io::Json before = io::parse_json(text, path.string());
  return edited_json(text, before, ExpertPatterns(base, plan, path.string()).renumbered(before));
}

}  // namespace espalier::prune
