// SPDX-License-Identifier: Apache-2.0
// Reads a Hugging Face `tokenizer.json` with a BPE model into a TokenizerDefinition. Truncation and
// padding entries are left to the caller, as in transformers.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/tokenizer_json.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/io/json.hpp>
#include <espalier/text/tokenizer_components.hpp>
#include <espalier/text/tokenizer_definition.hpp>

namespace espalier::text {

namespace detail {

/// "a b" or ["a", "b"].
inline std::pair<std::string, std::string> parse_merge(const Json& j) {
  if (j.is_array()) {
    ESP_REQUIRE(j.size() == 2, FormatError, j.where(), ": a merge of ", j.size(),
                " tokens, expected 2");
    return {j.at(0).as_string(), j.at(1).as_string()};
  }
  const std::string s = j.as_string();
  const std::size_t space = s.find(' ');
  ESP_REQUIRE(space != std::string::npos && s.find(' ', space + 1) == std::string::npos,
              FormatError, j.where(), ": merge '", s, "', expected two tokens and one space");
  return {s.substr(0, space), s.substr(space + 1)};
}

inline MergeTable parse_merges(const Json& list, const Vocabulary& vocabulary) {
  const auto require = [&](const Json& j, std::string_view token) {
    const std::int32_t id = vocabulary.find(token);
    ESP_REQUIRE(id >= 0, FormatError, j.where(), ": merge names '", token,
                "', which is not in the vocabulary");
    return id;
  };
  MergeTable merges(list.items().size());
  std::uint32_t rank = 0;
  std::string merged;
  for (const Json& j : list.items()) {
    const auto [left, right] = parse_merge(j);
    merged.assign(left).append(right);
    merges.insert(require(j, left), require(j, right), {rank++, require(j, merged)});
  }
  return merges;
}

inline void require_plain_bpe(const Json& model) {
  const std::string type = text_or(model, "type", "BPE");
  ESP_REQUIRE(type == "BPE", FormatError, model.where(), ": model type '", type,
              "' is not supported; supported: BPE");
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    ESP_REQUIRE(text_or(model, key, "").empty(), FormatError, model.where(), ": \"", key,
                "\" is not supported");
  }
  const Json* dropout = model.find_value("dropout");
  ESP_REQUIRE(dropout == nullptr || dropout->as_double() == 0, FormatError, model.where(),
              ": \"dropout\" is for training a tokenizer; remove it");
}

inline void parse_model(const Json& model, TokenizerDefinition& d) {
  require_plain_bpe(model);
  const auto tokens = model.at("vocab").members();
  d.vocabulary = Vocabulary(tokens.size());
  for (const auto& [token, id] : tokens) {
    d.vocabulary.add(token, id.as_int(), d.file);
  }
  BpeOptions options{.fuse_unk = bool_or(model, "fuse_unk", false),
                     .byte_fallback = bool_or(model, "byte_fallback", false),
                     .ignore_merges = bool_or(model, "ignore_merges", false)};
  if (const Json* unk = model.find_value("unk_token")) {
    options.unk_id = d.vocabulary.find(unk->as_string());
    ESP_REQUIRE(options.unk_id >= 0, FormatError, unk->where(), ": '", unk->as_string(),
                "' is not in the vocabulary");
  }
  d.model = BpeModel(d.vocabulary, parse_merges(model.at("merges"), d.vocabulary), options);
}

inline AddedToken parse_added_token(const Json& j, std::uint64_t id) {
  ESP_REQUIRE(id < (std::uint64_t{1} << 31), FormatError, j.where(), ": id ", id,
              ", expected below 2^31");
  const bool special = bool_or(j, "special", false);
  return {.content = j.at("content").as_string(),
          .id = static_cast<std::int32_t>(id),
          .special = special,
          .single_word = bool_or(j, "single_word", false),
          .lstrip = bool_or(j, "lstrip", false),
          .rstrip = bool_or(j, "rstrip", false),
          .normalized = bool_or(j, "normalized", !special)};
}

/// Numbers tokens like the reference: a token of the model keeps the model's id, any other takes
/// the next free one, regardless of the file (files written by the reference agree).
inline void add_tokens(const Json& list, TokenizerDefinition& d) {
  std::unordered_map<std::string, std::int32_t> ids;  // of the tokens added so far
  std::int64_t next = d.vocabulary.count();
  for (const Json& j : list.items()) {
    AddedToken token = parse_added_token(j, j.at("id").as_uint());
    if (token.content.empty()) continue;
    const std::int32_t own = d.vocabulary.find(token.content);
    const auto added = ids.find(token.content);
    if (added != ids.end()) {
      token.id = added->second;
    } else {
      token.id = own >= 0 ? own : static_cast<std::int32_t>(next);
    }
    ids.insert_or_assign(token.content, token.id);
    next = std::max<std::int64_t>(next, token.id + 1LL);
    d.added.push_back(std::move(token));
  }
}

}  // namespace detail

/// @param file names the text in messages
/// @throws FormatError
ESP_INLINE TokenizerDefinition parse_tokenizer_json(std::string_view text,
                                                    const std::string& file) {
  const io::Json root = io::parse_json(text, file);
  TokenizerDefinition d;
  d.file = file;
  detail::parse_model(root.at("model"), d);
  detail::parse_components(root, d);
  if (const io::Json* added = root.find_value("added_tokens")) {
    detail::add_tokens(*added, d);
  }
  d.finish();
  return d;
}

}  // namespace espalier::text
