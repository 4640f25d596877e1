// SPDX-License-Identifier: Apache-2.0
// The components of tokenizer.json around its model: normalizers, pre-tokenizers, post-processors,
// decoders. Unknown components are refused by name, never skipped: an almost correct tokenizer
// gives a model other tokens than in training. (Includes io/: tokenizer files are JSON.)
#pragma once

#ifdef __CUDACC__
#error "espalier/text/tokenizer_components.hpp is host-only; include it from a .cpp"
#endif

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/io/json.hpp>
#include <espalier/text/tokenizer_definition.hpp>

namespace espalier::text::detail {

using io::Json;

inline std::string type_of(const Json& component) {
  return component.at("type").as_string();
}

[[noreturn]] inline void refuse(const Json& component, std::string_view kind,
                                std::string_view supported) {
  throw FormatError(
      espalier::detail::concat({component.where(), ": ", kind, " '", type_of(component),
                                "' is not supported; supported: ", supported}));
}

inline bool bool_or(const Json& j, std::string_view key, bool otherwise) {
  const Json* v = j.find_value(key);
  return v == nullptr ? otherwise : v->as_bool();
}

inline std::string text_or(const Json& j, std::string_view key, std::string_view otherwise) {
  const Json* v = j.find_value(key);
  return v == nullptr ? std::string(otherwise) : v->as_string();
}

inline std::string nonempty(const Json& j, std::string_view key) {
  std::string s = j.at(key).as_string();
  ESP_REQUIRE(!s.empty(), FormatError, j.where(), ": \"", key, "\" is empty");
  return s;
}

/// A component, or the components of a (nested) Sequence, one after another.
template <class Each>
void for_each_step(const Json* component, std::string_view list_key, Each&& each) {
  if (component == nullptr) return;
  if (type_of(*component) != "Sequence") {
    each(*component);
    return;
  }
  for (const Json& step : component->at(list_key).items()) for_each_step(&step, list_key, each);
}

inline Pattern parse_pattern(const Json& j) {
  if (j.find("String") != nullptr) return Pattern(nonempty(j, "String"));
  return Pattern(Regex(nonempty(j, "Regex"), j.where()));
}

// Emplaced, not returned: GCC 12 warns about moving a variant of these.
inline void add_normalizer(const Json& j, std::vector<Normalizer>& to) {
  const std::string type = type_of(j);
  if (type == "Prepend") {
    to.emplace_back(PrependNormalizer{j.at("prepend").as_string()});
  } else if (type == "Replace") {
    to.emplace_back(ReplaceNormalizer{parse_pattern(j.at("pattern")), j.at("content").as_string()});
  } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    to.emplace_back(UnicodeNormalizer{type.back() == 'C', type[2] == 'K'});
  } else if (type == "Lowercase") {
    to.emplace_back(LowercaseNormalizer{});
  } else if (type == "Strip") {
    to.emplace_back(StripNormalizer{j.at("strip_left").as_bool(), j.at("strip_right").as_bool()});
  } else {
    refuse(j, "normalizer", "Sequence, Prepend, Replace, NFC, NFD, NFKC, NFKD, Lowercase, Strip");
  }
}

/// `add_prefix_space: false` of older files means `never`.
inline MetaspacePreTokenizer::Prepend parse_prepend_scheme(const Json& j) {
  using Prepend = MetaspacePreTokenizer::Prepend;
  if (!bool_or(j, "add_prefix_space", true)) return Prepend::never;
  const std::string scheme = text_or(j, "prepend_scheme", "always");
  if (scheme == "always") return Prepend::always;
  if (scheme == "first") return Prepend::first;
  ESP_REQUIRE(scheme == "never", FormatError, j.where(), ": prepend_scheme '", scheme,
              "', expected first, always or never");
  return Prepend::never;
}

inline Delimiter parse_behavior(const Json& j) {
  const std::string& name = j.at("behavior").as_string();
  constexpr std::pair<std::string_view, Delimiter> kNames[] = {
      {"Removed", Delimiter::removed},
      {"Isolated", Delimiter::isolated},
      {"MergedWithPrevious", Delimiter::merged_with_previous},
      {"MergedWithNext", Delimiter::merged_with_next},
      {"Contiguous", Delimiter::contiguous}};
  for (const auto& [known, behavior] : kNames) {
    if (name == known) return behavior;
  }
  throw FormatError(espalier::detail::concat(
      {j.where(), ": behavior '", name,
       "', expected Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous"}));
}

inline PreTokenizer parse_pre_tokenizer(const Json& j) {
  const std::string type = type_of(j);
  if (type == "ByteLevel") {
    return ByteLevelPreTokenizer{bool_or(j, "add_prefix_space", true),
                                 bool_or(j, "use_regex", true)};
  }
  if (type == "Digits") return DigitsPreTokenizer{bool_or(j, "individual_digits", false)};
  if (type == "Metaspace") {
    return MetaspacePreTokenizer{nonempty(j, "replacement"), parse_prepend_scheme(j),
                                 bool_or(j, "split", true)};
  }
  if (type == "Split") {
    return SplitPreTokenizer{parse_pattern(j.at("pattern")), parse_behavior(j),
                             bool_or(j, "invert", false)};
  }
  refuse(j, "pre_tokenizer", "Sequence, ByteLevel, Digits, Metaspace, Split");
}

inline Decoder parse_decoder(const Json& j) {
  const std::string type = type_of(j);
  if (type == "ByteLevel") return ByteLevelDecoder{};
  if (type == "ByteFallback") return ByteFallbackDecoder{};
  if (type == "Fuse") return FuseDecoder{};
  if (type == "Replace") {
    return ReplaceDecoder{parse_pattern(j.at("pattern")), j.at("content").as_string()};
  }
  if (type == "Strip") {
    return StripDecoder{nonempty(j, "content"), j.at("start").as_uint(), j.at("stop").as_uint()};
  }
  if (type == "Metaspace") {
    return MetaspaceDecoder{nonempty(j, "replacement"),
                            parse_prepend_scheme(j) != MetaspacePreTokenizer::Prepend::never};
  }
  refuse(j, "decoder", "Sequence, ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace");
}

/// Adds the ids that a TemplateProcessing puts before and after a single text.
inline void parse_template(const Json& j, TokenizerDefinition& d) {
  std::vector<std::int32_t> before, after;
  bool seen_text = false;
  for (const Json& item : j.at("single").items()) {
    if (item.find("Sequence") != nullptr) {
      ESP_REQUIRE(!seen_text, FormatError, j.where(), ": the text appears twice in \"single\"");
      seen_text = true;
      continue;
    }
    const std::string& name = item.at("SpecialToken").at("id").as_string();
    for (const Json& id : j.at("special_tokens").at(name).at("ids").items()) {
      const std::uint64_t value = id.as_uint();
      ESP_REQUIRE(value < (std::uint64_t{1} << 31), FormatError, id.where(), ": id ", value,
                  ", expected below 2^31");
      (seen_text ? after : before).push_back(static_cast<std::int32_t>(value));
    }
  }
  ESP_REQUIRE(seen_text, FormatError, j.where(), ": \"single\" has no place for the text");
  d.prefix.insert(d.prefix.begin(), before.begin(), before.end());
  d.suffix.insert(d.suffix.end(), after.begin(), after.end());
}

inline void parse_components(const Json& root, TokenizerDefinition& d) {
  for_each_step(root.find_value("normalizer"), "normalizers",
                [&](const Json& j) { add_normalizer(j, d.normalizers); });
  for_each_step(root.find_value("pre_tokenizer"), "pretokenizers",
                [&](const Json& j) { d.pre_tokenizers.push_back(parse_pre_tokenizer(j)); });
  for_each_step(root.find_value("post_processor"), "processors", [&](const Json& j) {
    const std::string type = type_of(j);
    if (type == "TemplateProcessing") {
      parse_template(j, d);
    } else if (type != "ByteLevel") {  // which only trims offsets
      refuse(j, "post_processor", "Sequence, TemplateProcessing, ByteLevel");
    }
  });
  for_each_step(root.find_value("decoder"), "decoders",
                [&](const Json& j) { d.decoders.push_back(parse_decoder(j)); });
  d.join_with_space = root.find_value("decoder") == nullptr;
}

}  // namespace espalier::text::detail
