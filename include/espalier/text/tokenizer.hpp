// SPDX-License-Identifier: Apache-2.0
// Converts between text and token ids with a checkpoint's tokenizer: `tokenizer.json`, or else
// SentencePiece's `tokenizer.model`. Ids equal those of Hugging Face's tokenizers. Encoding is
// const and thread-safe; it takes a few times the memory of the text.
#pragma once

#ifdef __CUDACC__
#error "espalier/text/tokenizer.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/io/file.hpp>
#include <espalier/text/sentencepiece.hpp>
#include <espalier/text/special_tokens.hpp>
#include <espalier/text/tokenizer_definition.hpp>
#include <espalier/text/tokenizer_json.hpp>
#include <espalier/text/word_cache.hpp>

namespace espalier::text {

/// Copies share the (constant) definition.
class Tokenizer {
 public:
  /// Reads a folder with `tokenizer.json` or `tokenizer.model`, or one of these files, and the
  /// settings beside it.
  /// @throws IoError, FormatError
  ESP_INLINE static Tokenizer load(const std::filesystem::path& folder_or_file) {
    namespace fs = std::filesystem;
    fs::path file = folder_or_file;
    if (fs::is_directory(file)) {
      file = folder_or_file / "tokenizer.json";
      if (!fs::exists(file)) file = folder_or_file / "tokenizer.model";
      ESP_REQUIRE(fs::exists(file), IoError, folder_or_file.string(),
                  ": no tokenizer.json and no tokenizer.model in this folder; copy one from the "
                  "checkpoint's source");
    }
    const std::string content = io::read_text(file);
    const TokenizerFolder folder(file.parent_path());
    if (file.extension() == ".json") {
      return {parse_tokenizer_json(content, file.string()), folder};
    }
    return {parse_sentencepiece(content, file.string(), folder.flag("add_bos_token", true),
                                folder.flag("add_eos_token", false), folder.added_tokens()),
            folder};
  }

  /// A tokenizer without a folder: special tokens are those that `encode` adds.
  ESP_INLINE explicit Tokenizer(TokenizerDefinition definition)
      : d_(std::make_shared<const TokenizerDefinition>(std::move(definition))),
        caches_(std::make_shared<WordCachePool>()) {
    size_ = d_->vocabulary.size();
    for (const AddedToken& t : d_->added) size_ = std::max<std::int64_t>(size_, t.id + 1LL);
  }

  /// @param add_special_tokens adds the tokenizer's tokens around a text (such as BOS). A rendered
  /// chat template contains them already: pass false.
  /// @throws FormatError if the text is not UTF-8
  ESP_INLINE std::vector<std::int32_t> encode(std::string_view text,
                                              bool add_special_tokens = true) const {
    const std::size_t bad = find_invalid_utf8(text);
    ESP_REQUIRE(bad == std::string_view::npos, FormatError,
                "encode: the text is not UTF-8 at byte ", bad, " of ", text.size(),
                "; convert it to UTF-8");
    std::vector<std::int32_t> ids;
    ids.reserve(text.size() / 3 + 8);
    if (add_special_tokens) ids = d_->prefix;
    const WordCachePool::Lease cache = caches_->borrow();
    for (const Segment& segment : d_->raw_finder.split(text)) {
      const std::string_view part = view(text, segment.span);
      if (segment.id >= 0) {
        ids.push_back(segment.id);
      } else {
        encode_raw(part, segment.span.begin == 0, *cache, ids);
      }
    }
    if (add_special_tokens) ids.insert(ids.end(), d_->suffix.begin(), d_->suffix.end());
    return ids;
  }

  /// The text of `ids`. Ids without a token are skipped, as in the reference: models often have
  /// more rows than their tokenizer has tokens.
  ESP_INLINE std::string decode(std::span<const std::int32_t> ids,
                                bool skip_special_tokens = true) const {
    Parts parts;
    for (const std::int32_t id : ids) {
      const std::string* t = text_of(id);
      if (t == nullptr || (skip_special_tokens && is_special(id))) continue;
      parts.push_back(*t);
    }
    if (d_->join_with_space) {
      for (std::size_t i = 1; i < parts.size(); ++i) parts[i].insert(0, 1, ' ');
    }
    for (const Decoder& decoder : d_->decoders) {
      parts = std::visit([&](const auto& step) { return step.apply(std::move(parts)); }, decoder);
    }
    return detail::join(parts);
  }

  /// The largest id plus one, added tokens included.
  std::int64_t vocab_size() const { return size_; }

  /// The id of a token by its text in the vocabulary; empty if there is no such token.
  std::optional<std::int32_t> id(std::string_view token) const {
    if (const std::int32_t own = d_->vocabulary.find(token); own >= 0) return own;
    for (const AddedToken& t : d_->added) {
      if (t.content == token) return t.id;
    }
    return std::nullopt;
  }

  /// @throws Error if no token has this id
  const std::string& token(std::int32_t id) const {
    const std::string* t = text_of(id);
    ESP_REQUIRE(t != nullptr, Error, d_->file, ": no token has id ", id, "; ids are 0 to ",
                size_ - 1);
    return *t;
  }
  bool has_token(std::int32_t id) const { return text_of(id) != nullptr; }
  bool is_special(std::int32_t id) const {
    const auto it = d_->added_by_id.find(id);
    return it != d_->added_by_id.end() && d_->added[it->second].special;
  }

  /// @throws FormatError when an id is not one of the model's `vocabulary` rows
  ESP_INLINE void require_within(std::span<const std::int32_t> ids, std::int64_t vocabulary) const {
    for (const std::int32_t id : ids) {
      ESP_REQUIRE(id >= 0 && id < vocabulary, FormatError, d_->file, ": token id ", id,
                  " is beyond the model's vocabulary of ", vocabulary,
                  "; tokenizer and checkpoint do not belong together");
    }
  }

  std::optional<std::int32_t> bos_id() const { return bos_; }
  std::optional<std::int32_t> eos_id() const { return eos_; }
  std::optional<std::int32_t> pad_id() const { return pad_; }
  std::optional<std::int32_t> unk_id() const { return unk_; }
  const std::string& file() const { return d_->file; }

 private:
  Tokenizer(TokenizerDefinition definition, const TokenizerFolder& folder)
      : Tokenizer(std::move(definition)) {
    const auto role_id = [&](const char* role) -> std::optional<std::int32_t> {
      if (const std::optional<std::string> token = folder.token_text(role)) {
        if (const auto known = id(*token)) return known;
      }
      return folder.configured_id(role);
    };
    bos_ = role_id("bos_token");
    eos_ = role_id("eos_token");
    pad_ = role_id("pad_token");
    unk_ = role_id("unk_token");
    if (!unk_ && d_->model.options().unk_id >= 0) unk_ = d_->model.options().unk_id;
  }

  static std::string_view view(std::string_view s, const Span& span) {
    return s.substr(span.begin, span.end - span.begin);
  }

  const std::string* text_of(std::int32_t id) const {
    if (const auto it = d_->added_by_id.find(id); it != d_->added_by_id.end()) {
      return &d_->added[it->second].shown;
    }
    return d_->vocabulary.text(id);
  }

  /// Raw text between added tokens.
  void encode_raw(std::string_view part, bool at_origin, WordCache& cache,
                  std::vector<std::int32_t>& ids) const {
    std::string normalized;
    if (!d_->normalizers.empty()) {
      normalized = d_->normalize(part);
      part = normalized;
    }
    for (const Segment& segment : d_->normalized_finder.split(part)) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
        continue;
      }
      const std::string_view words = view(part, segment.span);
      if (d_->pre_tokenizers.empty()) {
        encode_piece(words, cache, ids);
        continue;
      }
      Pieces pieces{std::string(words), {{0, words.size()}}, at_origin && segment.span.begin == 0};
      for (const PreTokenizer& p : d_->pre_tokenizers) {
        std::visit([&](const auto& step) { step.apply(pieces); }, p);
      }
      for (const Span& span : pieces.spans) encode_piece(pieces.piece(span), cache, ids);
    }
  }

  void encode_piece(std::string_view piece, WordCache& cache,
                    std::vector<std::int32_t>& ids) const {
    constexpr std::string_view kSpace = "\xE2\x96\x81";
    while (d_->words_start_with_metaspace) {
      std::size_t at = 0;
      while (piece.compare(at, kSpace.size(), kSpace) == 0) at += kSpace.size();
      const std::size_t next = piece.find(kSpace, at);
      if (next == std::string_view::npos) break;
      encode_word(piece.substr(0, next), cache, ids);
      piece.remove_prefix(next);
    }
    encode_word(piece, cache, ids);
  }

  void encode_word(std::string_view word, WordCache& cache, std::vector<std::int32_t>& ids) const {
    const bool cached = word.size() <= WordCache::kMaxWordBytes;
    if (cached && cache.find(word, ids)) return;
    const std::size_t before = ids.size();
    d_->model.encode_word(d_->vocabulary, word, cache.scratch, ids);
    if (cached) cache.insert(word, std::span(ids).subspan(before));
  }

  std::shared_ptr<const TokenizerDefinition> d_;
  std::shared_ptr<WordCachePool> caches_;
  std::int64_t size_ = 0;
  std::optional<std::int32_t> bos_, eos_, pad_, unk_;
};

}  // namespace espalier::text
