// SPDX-License-Identifier: Apache-2.0
// Text to token ids and back, line by line, with a checkpoint's own tokenizer. Needs no weights.
//   echo '{"text": "Hello"}' | tokenize --model DIR          prints {"ids":[1,22557]}
//   echo '{"ids": [1, 22557]}' | tokenize --model DIR --decode    prints {"text":"Hello"}
#include <espalier/io/json.hpp>
#include <espalier/text/tokenizer.hpp>

#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "cli/print.hpp"
#include "cli/program.hpp"

namespace {

using espalier::io::Json;
using espalier::text::Tokenizer;

struct Options {
  std::string model;
  std::string input;
  bool decode = false;
  bool no_special_tokens = false;
  bool keep_special_tokens = false;
};

Json encode_line(const Tokenizer& tokenizer, const Json& line, const Options& o) {
  const std::string& text = line.at("text").as_string();
  Json out;
  out["ids"] = Json::array(tokenizer.encode(text, !o.no_special_tokens));
  return out;
}

Json decode_line(const Tokenizer& tokenizer, const Json& line, const Options& o) {
  std::vector<std::int32_t> ids;
  for (const Json& id : line.at("ids").items()) {
    const std::int64_t value = id.as_int();
    ESP_REQUIRE(value >= 0 && value < tokenizer.vocab_size() &&
                    tokenizer.has_token(static_cast<std::int32_t>(value)),
                espalier::FormatError, id.where(), ": no token has id ", value,
                "; the vocabulary has ids 0 to ", tokenizer.vocab_size() - 1);
    ids.push_back(static_cast<std::int32_t>(value));
  }
  Json out;
  out["text"] = tokenizer.decode(ids, !o.keep_special_tokens);
  return out;
}

void run(const Options& o, bool one_object) {
  const Tokenizer tokenizer = Tokenizer::load(o.model);
  const std::string source = o.input.empty() ? "standard input" : o.input;
  std::ifstream file;
  if (!o.input.empty()) {
    file.open(o.input, std::ios::binary);
    ESP_REQUIRE(file, espalier::IoError, o.input, ": cannot open; check the path of --input");
  }
  std::istream& in = o.input.empty() ? std::cin : file;
  Json all = Json::array();
  std::string line;
  for (std::size_t number = 1; std::getline(in, line); ++number) {
    const Json parsed = espalier::io::parse_json(line, fmt::format("{}: line {}", source, number));
    Json out = o.decode ? decode_line(tokenizer, parsed, o) : encode_line(tokenizer, parsed, o);
    if (one_object) {
      all.push_back(std::move(out));
    } else {
      espalier::print("{}\n", espalier::io::dump(out));
    }
  }
  ESP_REQUIRE(!in.bad(), espalier::IoError, source, ": cannot read");
  if (!one_object) return;
  Json object;
  object["lines"] = std::move(all);
  espalier::print("{}\n", espalier::io::dump(object));
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  return espalier::run_program(
      argc, argv, "tokenize",
      "Turns text into token ids, or ids into text, one JSON object a line.",
      [&](CLI::App& app) {
        app.add_option("--model", o.model, "Folder with tokenizer.json or tokenizer.model")
            ->required();
        app.add_option("--input", o.input, "File of JSON lines; standard input if not given");
        app.add_flag("--decode", o.decode, "Read {\"ids\": [...]}, write {\"text\": ...}");
        app.add_flag("--no-special-tokens", o.no_special_tokens,
                     "Encode without the tokens that the tokenizer adds, such as BOS");
        app.add_flag("--keep-special-tokens", o.keep_special_tokens,
                     "Decode special tokens too; without it they are left out");
      },
      [&](const espalier::CommonOptions& common) { run(o, common.json); });
}
