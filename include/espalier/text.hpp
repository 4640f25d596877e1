// SPDX-License-Identifier: Apache-2.0
// Everything in text/.
#pragma once
#ifdef __CUDACC__
#error "espalier/text.hpp is host-only; include it from a .cpp"
#endif

#include <espalier/text/added_tokens.hpp>
#include <espalier/text/bpe.hpp>
#include <espalier/text/byte_level.hpp>
#include <espalier/text/byte_tokenizer.hpp>
#include <espalier/text/chat_template.hpp>
#include <espalier/text/chat_tokenizer.hpp>
#include <espalier/text/decode_stream.hpp>
#include <espalier/text/decoder.hpp>
#include <espalier/text/encode.hpp>
#include <espalier/text/normalizer.hpp>
#include <espalier/text/pre_tokenizer.hpp>
#include <espalier/text/protobuf.hpp>
#include <espalier/text/regex.hpp>
#include <espalier/text/regex_syntax.hpp>
#include <espalier/text/sentencepiece.hpp>
#include <espalier/text/special_tokens.hpp>
#include <espalier/text/template_source.hpp>
#include <espalier/text/tokenizer.hpp>
#include <espalier/text/tokenizer_components.hpp>
#include <espalier/text/tokenizer_definition.hpp>
#include <espalier/text/tokenizer_json.hpp>
#include <espalier/text/unicode.hpp>
#include <espalier/text/vocabulary.hpp>
#include <espalier/text/word_cache.hpp>
