// SPDX-License-Identifier: Apache-2.0
// Reads SentencePiece's `tokenizer.model` (a protobuf message) into a TokenizerDefinition. BPE
// models only. Two adjacent symbols merge if their concatenation is a piece, the highest score
// first; that is a merge table with one rank per piece. Control symbols become special added
// tokens, which are found in text as Hugging Face does (SentencePiece itself would not).
#pragma once

#ifdef __CUDACC__
#error "espalier/text/sentencepiece.hpp is host-only; include it from a .cpp"
#endif

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <espalier/core/error.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/text/protobuf.hpp>
#include <espalier/text/tokenizer_definition.hpp>
#include <espalier/text/unicode.hpp>

namespace espalier::text {

namespace detail {

struct SentencePieceFile {
  enum Type { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  struct Piece {
    std::string_view text;
    float score = 0;
    int type = normal;
  };
  std::vector<Piece> pieces;
  int model_type = 1;  // the format's default is unigram
  bool byte_fallback = false, whitespace_as_suffix = false;
  bool charsmap = false, dummy_prefix = true, remove_extra_spaces = true, escape_spaces = true;

  SentencePieceFile(std::string_view bytes, std::string_view file) {
    for (ProtobufReader r(bytes, file); r.next();) {
      if (r.field() == 1) read_piece(r.message(), file);
      if (r.field() == 2) read_trainer(r.message());
      if (r.field() == 3) read_normalizer(r.message());
    }
  }

 private:
  void read_piece(ProtobufReader r, std::string_view file) {
    constexpr std::size_t kMaxPieceBytes = 4096;
    Piece piece;
    while (r.next()) {
      if (r.field() == 1) piece.text = r.body();
      if (r.field() == 2) piece.score = r.real();
      if (r.field() == 3) piece.type = static_cast<int>(std::min<std::uint64_t>(r.number(), 99));
    }
    const std::size_t id = pieces.size();
    ESP_REQUIRE(find_invalid_utf8(piece.text) == std::string_view::npos, FormatError, file,
                ": piece ", id, " is not valid UTF-8");
    ESP_REQUIRE(!piece.text.empty() && piece.text.size() <= kMaxPieceBytes, FormatError, file,
                ": piece ", id, " has ", piece.text.size(), " bytes, expected 1 to ",
                kMaxPieceBytes);
    ESP_REQUIRE(piece.score == piece.score, FormatError, file, ": the score of piece ", id,
                " is not a number");
    ESP_REQUIRE(piece.type >= normal && piece.type <= byte && piece.type != unused, FormatError,
                file, ": piece ", id, " ('", piece.text, "') is of type ", piece.type,
                ", supported are normal, unknown, control, user-defined and byte pieces");
    pieces.push_back(piece);
  }
  void read_trainer(ProtobufReader r) {
    while (r.next()) {
      if (r.field() == 3) model_type = static_cast<int>(std::min<std::uint64_t>(r.number(), 99));
      if (r.field() == 24) whitespace_as_suffix = r.number() != 0;
      if (r.field() == 35) byte_fallback = r.number() != 0;
    }
  }
  void read_normalizer(ProtobufReader r) {
    while (r.next()) {
      if (r.field() == 2) charsmap = !r.body().empty();
      if (r.field() == 3) dummy_prefix = r.number() != 0;
      if (r.field() == 4) remove_extra_spaces = r.number() != 0;
      if (r.field() == 5) escape_spaces = r.number() != 0;
    }
  }
};

inline void require_supported(const SentencePieceFile& model, std::string_view file) {
  ESP_REQUIRE(!model.pieces.empty(), FormatError, file, ": no pieces; not a SentencePiece model");
  ESP_REQUIRE(model.model_type == 2, FormatError, file, ": model type ", model.model_type,
              ", only BPE (2) is supported; convert it to a tokenizer.json");
  ESP_REQUIRE(!model.charsmap && !model.remove_extra_spaces && model.escape_spaces &&
                  !model.whitespace_as_suffix,
              FormatError, file,
              ": its normalizer rewrites text (a character map, removal of extra spaces, or space "
              "as suffix), only the identity is supported; convert it to a tokenizer.json");
}

/// One rank per piece, by decreasing score; equivalent to SentencePiece's merge order.
inline MergeTable merges_of(const SentencePieceFile& model, const Vocabulary& normal_pieces) {
  std::vector<std::int32_t> order;
  for (std::size_t i = 0; i < model.pieces.size(); ++i) {
    if (model.pieces[i].type == SentencePieceFile::normal) {
      order.push_back(static_cast<std::int32_t>(i));
    }
  }
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return model.pieces[a].score > model.pieces[b].score;
  });
  MergeTable merges(order.size() * 2);
  std::uint32_t rank = 0;
  for (std::size_t k = 0; k < order.size(); ++k) {
    const SentencePieceFile::Piece& piece = model.pieces[order[k]];
    if (k > 0 && piece.score != model.pieces[order[k - 1]].score) ++rank;
    for (std::size_t at = 1; at < piece.text.size(); ++at) {
      if ((static_cast<std::uint8_t>(piece.text[at]) & 0xC0) == 0x80) continue;
      const std::int32_t left = normal_pieces.find(piece.text.substr(0, at));
      const std::int32_t right = normal_pieces.find(piece.text.substr(at));
      if (left >= 0 && right >= 0) merges.insert(left, right, {rank, order[k]});
    }
  }
  return merges;
}

}  // namespace detail

/// @param bytes the content of a `tokenizer.model`; `file` is its name for messages
/// @param beside added tokens that other files of the folder define; they go before the file's own
/// @throws FormatError
ESP_INLINE TokenizerDefinition parse_sentencepiece(std::string_view bytes, std::string_view file,
                                                   bool add_bos, bool add_eos,
                                                   const std::vector<AddedToken>& beside = {}) {
  using File = detail::SentencePieceFile;
  const File model(bytes, file);
  detail::require_supported(model, file);
  const std::string space = "\xE2\x96\x81";
  TokenizerDefinition d;
  d.file = file;
  d.vocabulary = Vocabulary(model.pieces.size());
  Vocabulary normal_pieces(model.pieces.size());
  d.added = beside;
  BpeOptions options{.fuse_unk = true, .byte_fallback = model.byte_fallback};
  for (std::size_t i = 0; i < model.pieces.size(); ++i) {
    const File::Piece& piece = model.pieces[i];
    const auto id = static_cast<std::int32_t>(i);
    ESP_REQUIRE(d.vocabulary.find(piece.text) < 0, FormatError, file, ": piece ", id, " ('",
                piece.text, "') appears twice");
    d.vocabulary.add(piece.text, id, file);
    if (piece.type == File::normal) normal_pieces.add(piece.text, id, file);
    if (piece.type == File::unknown) options.unk_id = id;
    if (piece.type == File::unknown || piece.type == File::control ||
        piece.type == File::user_defined) {
      d.added.push_back({.content = std::string(piece.text),
                         .id = id,
                         .special = piece.type != File::user_defined});
    }
  }
  d.model = BpeModel(d.vocabulary, detail::merges_of(model, normal_pieces), options);
  if (model.dummy_prefix) d.normalizers.push_back(PrependNormalizer{space});
  d.normalizers.push_back(ReplaceNormalizer{Pattern(" "), space});
  d.decoders = {ReplaceDecoder{Pattern(space), " "}, ByteFallbackDecoder{}, FuseDecoder{}};
  if (model.dummy_prefix) d.decoders.push_back(StripDecoder{" ", 1, 0});
  const auto require = [&](std::string_view token) {
    const std::int32_t id = d.vocabulary.find(token);
    ESP_REQUIRE(id >= 0, FormatError, file, ": no piece '", token,
                "', which tokenizer_config.json asks to add");
    return id;
  };
  if (add_bos) d.prefix.push_back(require("<s>"));
  if (add_eos) d.suffix.push_back(require("</s>"));
  d.finish();
  return d;
}

}  // namespace espalier::text
