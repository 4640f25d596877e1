// SPDX-License-Identifier: Apache-2.0
// The content of a tokenizer file of any format: vocabulary, BPE model, added tokens, and the steps
// before and after the model. tokenizer_json.hpp and sentencepiece.hpp read it, tokenizer.hpp runs
// it.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/tokenizer_definition.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <espalier/text/added_tokens.hpp>
#include <espalier/text/bpe.hpp>
#include <espalier/text/decoder.hpp>
#include <espalier/text/normalizer.hpp>
#include <espalier/text/pre_tokenizer.hpp>
#include <espalier/text/vocabulary.hpp>

namespace espalier::text {

struct TokenizerDefinition {
  std::string file;
  Vocabulary vocabulary;  // the model's own; added tokens may lie outside
  BpeModel model;
  std::vector<AddedToken> added;
  std::vector<Normalizer> normalizers;
  std::vector<PreTokenizer> pre_tokenizers;
  std::vector<Decoder> decoders;
  bool join_with_space = false;              // no decoder at all: tokens are listed, not joined
  std::vector<std::int32_t> prefix, suffix;  // added around a text by encoding

  // Derived by finish():
  AddedTokenFinder raw_finder, normalized_finder;
  std::unordered_map<std::int32_t, std::size_t> added_by_id;  // -> index into `added`
  bool words_start_with_metaspace = false;                    // see metaspace_starts_words

  std::string normalize(std::string_view s) const {
    std::string out(s);
    for (const Normalizer& n : normalizers) {
      out = std::visit([&](const auto& step) { return step.apply(out); }, n);
    }
    return out;
  }

  /// Call once when everything above is set.
  void finish() {
    for (std::size_t i = 0; i < added.size(); ++i) {
      AddedToken& token = added[i];
      token.shown = token.normalized ? normalize(token.content) : token.content;
      added_by_id.emplace(token.id, i);
      (token.normalized ? normalized_finder : raw_finder).add(token.shown, token);
    }
    words_start_with_metaspace = metaspace_starts_words();
  }

 private:
  /// True if no token has U+2581 after another character. Then no merge crosses a place where
  /// U+2581 follows another character, and text can be split there before the model: the tokens are
  /// equal, but words repeat and are cached.
  bool metaspace_starts_words() const {
    constexpr std::string_view kSpace = "\xE2\x96\x81";
    if (model.options().ignore_merges || vocabulary.find(kSpace) < 0) return false;
    for (std::int64_t id = 0; id < vocabulary.size(); ++id) {
      const std::string* token = vocabulary.text(id);
      if (token == nullptr) continue;
      std::size_t at = 0;
      while (token->compare(at, kSpace.size(), kSpace) == 0) at += kSpace.size();
      if (token->find(kSpace, at) != std::string::npos) return false;
    }
    return true;
  }
};

}  // namespace espalier::text
