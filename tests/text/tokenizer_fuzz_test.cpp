// SPDX-License-Identifier: Apache-2.0
// Damaged tokenizer files end in an Error or in a tokenizer that works, never in a crash. Run it
// under the sanitizers to see reads out of bounds too.
#include <espalier/io/file.hpp>
#include <espalier/text/chat_template.hpp>
#include <espalier/text/tokenizer.hpp>

#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "support/catch.hpp"

namespace {

using namespace espalier;

const std::filesystem::path kGolden =
    std::filesystem::path(ESPALIER_TESTS_DIR) / "golden" / "tokenizer";

/// Flips, inserts, removes and repeats a few stretches of `s`.
std::string damaged(std::string s, std::mt19937& rng) {
  const auto below = [&](std::size_t n) { return n == 0 ? 0 : rng() % n; };
  for (std::size_t k = 1 + below(4); k > 0; --k) {
    const std::size_t at = below(s.size()), n = 1 + below(12);
    switch (below(5)) {
      case 0:
        if (!s.empty()) s[at] = static_cast<char>(rng());
        break;
      case 1:
        s.erase(at, n);
        break;
      case 2:
        s.insert(at, std::string(n, "0\"{}[],:\\9-\xF0"[below(12)]));
        break;
      case 3:
        s.insert(at, s.substr(below(s.size()), n * 8));
        break;
      default:
        if (below(8) == 0) s.resize(at);
    }
  }
  return s;
}

void use(const text::Tokenizer& t) {
  const std::vector<std::int32_t> ids = t.encode("It's the 12 \u4f60\u597d <s><x> \n the end ");
  (void)t.decode(ids);
  (void)t.decode(std::vector<std::int32_t>{-1, 0, 5, 1 << 30, 259, 300});
}

/// Number of rounds that ended in an Error.
int fuzz(int rounds, unsigned seed, const std::string& whole,
         const std::function<void(const std::string&)>& read) {
  std::mt19937 rng(seed);
  int refused = 0;
  for (int i = 0; i < rounds; ++i) {
    try {
      read(damaged(whole, rng));
    } catch (const Error&) {
      ++refused;
    }
  }
  return refused;
}

/// The tokenizer file without most of its vocabulary, so that damage hits the rest as often.
std::string small_spec(const char* name) {
  const io::Json base = io::read_json(kGolden / name);
  io::Json vocabulary, merges = io::Json::array(), spec = base;
  for (const auto& [token, id] : base.at("model").at("vocab").members()) {
    if (id.as_int() < 300) vocabulary[token] = id;
  }
  for (const io::Json& merge : base.at("model").at("merges").items()) {
    std::string merged;
    for (const io::Json& part : merge.items()) merged += part.as_string();
    if (vocabulary.find(merged) != nullptr) merges.push_back(merge);
  }
  spec["model"]["vocab"] = vocabulary;
  spec["model"]["merges"] = merges;
  return io::dump(spec);
}

}  // namespace

TEST_CASE("tokenizer: damaged tokenizer.json files never crash", "[text][fuzz]") {
  for (const char* name : {"byte_level.json", "byte_fallback.json"}) {
    const std::string spec = small_spec(name);
    REQUIRE_NOTHROW(use(text::Tokenizer(text::parse_tokenizer_json(spec, "whole"))));
    const int refused = fuzz(1500, 3, spec, [](const std::string& s) {
      use(text::Tokenizer(text::parse_tokenizer_json(s, "damaged")));
    });
    CHECK(refused > 500);
  }
}

TEST_CASE("tokenizer: damaged chat templates never crash", "[text][fuzz]") {
  const std::string whole =
      text::detail::mixtral_source(true) + "{# a #}" + text::detail::chatml_source(true);
  const int refused = fuzz(5000, 4, whole, [](const std::string& s) {
    (void)text::ChatTemplate::from_source(s, "damaged", "", "");
  });
  CHECK(refused == 5000);
}

TEST_CASE("sentencepiece: damaged models never crash", "[.shared][text][fuzz]") {
  const std::filesystem::path data(ESPALIER_SHARED_DATA);
  const std::string model = io::read_text(data / "tokenizer" / "mixtral_8x7b.model");
  // The beginning holds pieces of every type, the end the settings.
  const std::string whole = model.substr(0, 6000) + model.substr(model.size() - 256);
  const int refused = fuzz(3000, 5, whole, [](const std::string& s) {
    use(text::Tokenizer(text::parse_sentencepiece(s, "damaged", false, false)));
  });
  CHECK(refused > 1000);
}
