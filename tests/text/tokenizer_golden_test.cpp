// SPDX-License-Identifier: Apache-2.0
// Ids and decoded text against Hugging Face's tokenizers; files by golden/make_tokenizer_cases.py.
#include <espalier/io/jsonl.hpp>
#include <espalier/text/decode_stream.hpp>
#include <espalier/text/tokenizer.hpp>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

using namespace espalier;
using io::Json;
using text::Tokenizer;

const std::filesystem::path kGolden =
    std::filesystem::path(ESPALIER_TESTS_DIR) / "golden" / "tokenizer";

std::vector<std::int32_t> ids_of(const Json& list) {
  std::vector<std::int32_t> ids;
  for (const Json& id : list.items()) ids.push_back(static_cast<std::int32_t>(id.as_int()));
  return ids;
}

/// A row is [text, ids, decoded] or [text, ids, decoded, decoded with special tokens].
void check_row(const Tokenizer& tokenizer, const Json& row) {
  const std::string& source = row.at(0).as_string();
  const std::vector<std::int32_t> want = ids_of(row.at(1));
  INFO("text: " << io::dump(row.at(0)));
  CHECK(tokenizer.encode(source) == want);
  if (!row.at(2).is_null()) CHECK(tokenizer.decode(want) == row.at(2).as_string());
  if (row.size() > 3) CHECK(tokenizer.decode(want, false) == row.at(3).as_string());
}

void check_file(const Tokenizer& tokenizer, const std::string& name) {
  const std::vector<Json> rows = io::read_jsonl(kGolden / name);
  REQUIRE(rows.size() > 400);
  for (std::size_t i = 1; i < rows.size(); ++i) check_row(tokenizer, rows[i]);
}

Json patched(const Json& base, const Json& patch) {
  Json spec = base;
  for (const auto& [key, value] : patch.members()) {
    const bool of_model = base.at("model").find(key) != nullptr;
    (of_model ? spec["model"] : spec)[key] = value;
  }
  return spec;
}

/// What is streamed, piece by piece, is what decode gives at once.
void check_stream(const Tokenizer& tokenizer, const std::vector<std::int32_t>& ids) {
  text::DecodeStream stream(tokenizer);
  std::string all;
  for (const std::int32_t id : ids) {
    const std::string part = stream.push(id);
    CHECK(text::find_invalid_utf8(part) == std::string::npos);
    all += part;
  }
  CHECK(all + stream.finish() == tokenizer.decode(ids));
}

}  // namespace

TEST_CASE("tokenizer: a byte-level tokenizer gives the ids and texts of tokenizers",
          "[text][tokenizer]") {
  check_file(Tokenizer::load(kGolden / "byte_level.json"), "byte_level_cases.jsonl");
}

TEST_CASE("tokenizer: a byte-fallback tokenizer gives the ids and texts of tokenizers",
          "[text][tokenizer]") {
  check_file(Tokenizer::load(kGolden / "byte_fallback.json"), "byte_fallback_cases.jsonl");
}

TEST_CASE("tokenizer: every component and flag gives the ids and texts of tokenizers",
          "[text][tokenizer]") {
  const std::vector<Json> rows = io::read_jsonl(kGolden / "component_cases.jsonl");
  REQUIRE(rows.size() > 50);
  for (std::size_t i = 1; i < rows.size(); ++i) {
    const Json base = io::read_json(kGolden / (rows[i].at("base").as_string() + ".json"));
    const std::string spec = io::dump(patched(base, rows[i].at("patch")));
    INFO("components: " << io::dump(rows[i].at("patch")));
    const Tokenizer tokenizer(text::parse_tokenizer_json(spec, "golden"));
    for (const Json& row : rows[i].at("cases").items()) check_row(tokenizer, row);
  }
}

TEST_CASE("tokenizer: text that is streamed token by token adds up to the decoded text",
          "[text][tokenizer]") {
  for (const char* name : {"byte_level", "byte_fallback"}) {
    const Tokenizer tokenizer = Tokenizer::load(kGolden / (std::string(name) + ".json"));
    const std::vector<Json> rows = io::read_jsonl(kGolden / (std::string(name) + "_cases.jsonl"));
    for (std::size_t i = 1; i < rows.size(); ++i) {
      INFO(name << ", text: " << io::dump(rows[i].at(0)));
      check_stream(tokenizer, ids_of(rows[i].at(1)));
    }
  }
}

TEST_CASE("tokenizer: Mixtral's own tokenizer gives the ids and texts of tokenizers",
          "[.shared][text][tokenizer]") {
  const std::filesystem::path data(ESPALIER_SHARED_DATA);
  check_file(Tokenizer::load(data / "tokenizer" / "mixtral_8x7b"), "mixtral_cases.jsonl");
}

TEST_CASE("tokenizer: Mixtral's SentencePiece model gives the same ids as its tokenizer.json",
          "[.shared][text][tokenizer]") {
  const std::filesystem::path data(ESPALIER_SHARED_DATA);
  check_file(Tokenizer::load(data / "tokenizer" / "mixtral_8x7b.model"), "mixtral_cases.jsonl");
}

TEST_CASE("tokenizer: SmolLM2's tokenizer gives the ids and texts of tokenizers",
          "[.smollm2][text][tokenizer]") {
  const char* folder = std::getenv("ESPALIER_SMOLLM2");
  INFO("set ESPALIER_SMOLLM2 to a folder of SmolLM2-135M-Instruct");
  REQUIRE(folder != nullptr);
  const Tokenizer tokenizer = Tokenizer::load(folder);
  check_file(tokenizer, "smollm2_cases.jsonl");
  CHECK(tokenizer.eos_id() == 2);
}
