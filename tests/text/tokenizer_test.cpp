// SPDX-License-Identifier: Apache-2.0
#include <espalier/io/file.hpp>
#include <espalier/text/decode_stream.hpp>
#include <espalier/text/tokenizer.hpp>

#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "support/catch.hpp"

namespace {

using namespace espalier;
using Catch::Matchers::Contains;
using text::Tokenizer;
using Ids = std::vector<std::int32_t>;

const std::filesystem::path kGolden =
    std::filesystem::path(ESPALIER_TESTS_DIR) / "golden" / "tokenizer";

/// A tokenizer of a few letters; `rest` are further members of the file.
std::string small_json(const std::string& rest = "", const std::string& model = "") {
  return R"({"model":{"type":"BPE",)" + model +
         R"("vocab":{"a":0,"b":1,"ab":2,"aba":3,"abab":4,"ba":5,"c":6},)" +
         R"("merges":["a b",["ab","a"],"ab ab","b a"]})" + rest + "}";
}

Tokenizer parse(const std::string& json) {
  return Tokenizer(text::parse_tokenizer_json(json, "t.json"));
}

std::string error_of(const std::string& json) {
  try {
    parse(json);
  } catch (const FormatError& e) {
    return e.what();
  }
  return "no error";
}

/// A folder of its own for one case, gone with it.
struct Folder {
  std::filesystem::path path;
  explicit Folder(const char* name)
      : path(std::filesystem::temp_directory_path() /
             (std::string(name) + std::to_string(::getpid()))) {
    std::filesystem::create_directories(path);
  }
  ~Folder() { std::filesystem::remove_all(path); }
};

}  // namespace

TEST_CASE("bpe: the pair of lowest rank merges first, the leftmost on ties", "[text][bpe]") {
  const Tokenizer t = parse(small_json());
  CHECK(t.encode("ab") == Ids{2});
  CHECK(t.encode("aba") == Ids{3});
  CHECK(t.encode("abab") == Ids{4});  // both pairs a+b come before ab+a
  CHECK(t.encode("abaab") == Ids{3, 2});
  CHECK(t.encode("baba") == Ids{1, 3});  // a+b before b+a
  CHECK(t.encode("baa") == Ids{5, 0});
  CHECK(t.encode("") == Ids{});
  CHECK(t.encode("axc") == Ids{0, 6});  // no unk token: the character vanishes
  CHECK(t.encode("axb") == Ids{2});
}

TEST_CASE("bpe: unknown characters are fused only where the model says so", "[text][bpe]") {
  CHECK(parse(small_json("", R"("unk_token":"c",)")).encode("xya") == Ids{6, 6, 0});
  CHECK(parse(small_json("", R"("unk_token":"c","fuse_unk":true,)")).encode("xyax") ==
        Ids{6, 0, 6});
}

TEST_CASE("tokenizer: a megabyte without a space takes time in proportion", "[text][bpe]") {
  for (const char* name : {"byte_level.json", "byte_fallback.json"}) {
    const Tokenizer t = Tokenizer::load(kGolden / name);
    const auto seconds = [&](std::size_t n) {
      const auto begin = std::chrono::steady_clock::now();
      const Ids ids = t.encode(std::string(n, 'a'));
      REQUIRE(ids.size() > n / 16);
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    };
    seconds(1000);
    const double once = seconds(1 << 17), eight_times = seconds(1 << 20);
    CAPTURE(name, once, eight_times);
    CHECK(eight_times < 24 * once + 0.5);  // quadratic time would be 64 times
  }
}

TEST_CASE("tokenizer: many threads share one and get the same ids", "[text][tokenizer]") {
  const Tokenizer t = Tokenizer::load(kGolden / "byte_level.json");
  std::vector<std::string> texts;
  for (int i = 0; i < 300; ++i) texts.push_back("It's " + std::to_string(i * 7919) + " days\n of");
  std::vector<Ids> want;
  for (const std::string& s : texts) want.push_back(t.encode(s));
  std::vector<int> wrong(4, -1);
  std::vector<std::thread> threads;
  for (int k = 0; k < 4; ++k) {
    threads.emplace_back([&, k] {
      int count = 0;
      for (std::size_t i = 0; i < texts.size(); ++i) count += t.encode(texts[i]) != want[i];
      wrong[k] = count;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}

TEST_CASE("tokenizer: text that is not UTF-8 is refused at its byte", "[text][tokenizer]") {
  const Tokenizer t = parse(small_json());
  CHECK_THROWS_WITH(t.encode("ab\xFF"), Contains("not UTF-8 at byte 2 of 3"));
  CHECK_THROWS_AS(t.encode("\xC0\x80"), FormatError);      // overlong
  CHECK_THROWS_AS(t.encode("\xED\xA0\x80"), FormatError);  // a surrogate
}

TEST_CASE("tokenizer: what is not supported is refused by file and name", "[text][tokenizer]") {
  CHECK_THAT(error_of(small_json(R"(,"normalizer":{"type":"BertNormalizer"})")),
             Contains("t.json: at \"normalizer\": normalizer 'BertNormalizer' is not supported"));
  CHECK_THAT(error_of(small_json(R"(,"pre_tokenizer":{"type":"Whitespace"})")),
             Contains("pre_tokenizer 'Whitespace'"));
  CHECK_THAT(error_of(small_json(R"(,"post_processor":{"type":"BertProcessing"})")),
             Contains("post_processor 'BertProcessing'"));
  CHECK_THAT(error_of(small_json(R"(,"decoder":{"type":"WordPiece"})")),
             Contains("decoder 'WordPiece'"));
  CHECK_THAT(error_of(R"({"model":{"type":"Unigram","vocab":[]}})"), Contains("'Unigram'"));
  CHECK_THAT(error_of(small_json("", R"("end_of_word_suffix":"</w>",)")),
             Contains("end_of_word_suffix"));
  CHECK_THAT(error_of(small_json(R"(,"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a"},)"
                                 R"("behavior":"Isolated","invert":false})")),
             Contains("'(a' does not compile"));
}

TEST_CASE("tokenizer: a broken model is refused by what is wrong", "[text][tokenizer]") {
  CHECK_THAT(error_of(R"({"model":{"vocab":{"a":0},"merges":["a b"]}})"),
             Contains("which is not in the vocabulary"));
  CHECK_THAT(error_of(R"({"model":{"vocab":{"a":0,"b":1},"merges":["a b"]}})"),
             Contains("merge names 'ab'"));
  CHECK_THAT(error_of(R"({"model":{"vocab":{"a":0,"b":0},"merges":[]}})"),
             Contains("id 0 stands for both"));
  CHECK_THAT(error_of(R"({"model":{"vocab":{"a":2000000000},"merges":[]}})"),
             Contains("has id 2000000000, expected 0 <= id <"));
  CHECK_THAT(error_of(R"({"model":{"vocab":{"a":-1},"merges":[]}})"), Contains("has id -1"));
  CHECK_THAT(error_of(small_json("", R"("unk_token":"?",)")), Contains("'?' is not in the vocab"));
  CHECK_THAT(error_of("{"), Contains("t.json: not valid JSON"));
}

TEST_CASE("tokenizer: a folder names its special tokens, the first file that does wins",
          "[text][tokenizer]") {
  const Folder folder("espalier_tokenizer_");
  io::write_text(folder.path / "tokenizer.json",
                 small_json(R"(,"added_tokens":[{"id":7,"content":"<e>","special":true}])"));
  Tokenizer t = Tokenizer::load(folder.path);
  CHECK(!t.bos_id());
  io::write_text(folder.path / "config.json", R"({"bos_token_id":1,"eos_token_id":[7,0]})");
  t = Tokenizer::load(folder.path);
  CHECK(t.bos_id() == 1);
  CHECK(t.eos_id() == 7);
  io::write_text(folder.path / "special_tokens_map.json", R"({"eos_token":"a","pad_token":"b"})");
  t = Tokenizer::load(folder.path / "tokenizer.json");
  CHECK(t.eos_id() == 0);
  CHECK(t.pad_id() == 1);
  io::write_text(folder.path / "tokenizer_config.json",
                 R"({"eos_token":{"content":"<e>"},"bos_token":null})");
  t = Tokenizer::load(folder.path);
  CHECK(t.eos_id() == 7);
  CHECK(t.bos_id() == 1);
  CHECK(t.vocab_size() == 8);
  CHECK(t.id("<e>") == 7);
  CHECK(t.token(7) == "<e>");
  CHECK_THROWS_WITH(t.token(8), Contains("no token has id 8; ids are 0 to 7"));
  CHECK(t.decode(Ids{0, 8, 7, 1}) == "a b");  // no decoder: tokens are listed
}

TEST_CASE("tokenizer: a special token is left out even where it is looked for in normalized text",
          "[text][tokenizer]") {
  const Tokenizer t =
      parse(small_json(R"(,"normalizer":{"type":"Prepend","prepend":"c"},)"
                       R"("decoder":{"type":"Fuse"},"added_tokens":)"
                       R"([{"id":7,"content":"<e>","special":true,"normalized":true}])"));
  const Ids ids = t.encode("<e>a");
  CHECK(ids == Ids{7, 0});
  CHECK(t.decode(ids) == "a");
  CHECK(t.decode(ids, false) == "c<e>a");
}

TEST_CASE("tokenizer: a folder without a tokenizer is refused", "[text][tokenizer]") {
  const Folder folder("espalier_no_tokenizer_");
  CHECK_THROWS_WITH(Tokenizer::load(folder.path), Contains("no tokenizer.json"));
}

TEST_CASE("decode stream: a character appears once all its tokens are there", "[text][tokenizer]") {
  const Tokenizer t = Tokenizer::load(kGolden / "byte_level.json");
  const Ids ids = t.encode("a\xF0\x9F\x99\x82");
  REQUIRE(ids.size() == 5);
  text::DecodeStream stream(t);
  CHECK(stream.push(ids[0]) == "a");
  for (int i = 1; i < 4; ++i) CHECK(stream.push(ids[i]).empty());
  CHECK(stream.push(ids[4]) == "\xF0\x9F\x99\x82");
  CHECK(stream.push(ids[1]).empty());
  CHECK(stream.finish() == "\xEF\xBF\xBD");
  CHECK(stream.finish().empty());
}

TEST_CASE("decode stream: text that never becomes whole is not held for ever",
          "[text][tokenizer]") {
  const Tokenizer t = Tokenizer::load(kGolden / "byte_level.json");
  const std::int32_t lead = t.encode("\xF0\x9F\x99\x82")[0];
  text::DecodeStream stream(t);
  std::string all;
  for (int i = 0; i < 500; ++i) all += stream.push(lead);
  CHECK(all.size() >= 400 * 3);
  all += stream.finish();
  CHECK(all == t.decode(Ids(500, lead)));
}
