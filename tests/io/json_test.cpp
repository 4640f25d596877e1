// SPDX-License-Identifier: Apache-2.0
// JSON in and out. The expected texts of doubles and escapes are what Python's json.dumps prints.
#include <cmath>
#include <limits>

#include <espalier/io/jsonl.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::io;
using espalier::test::message_of;

namespace {
Json parse(std::string_view text) {
  return parse_json(text, "config.json");
}
std::string error(std::string_view text) {
  return message_of<FormatError>([&] { (void)parse(text); });
}
}  // namespace

TEST_CASE("A parsed value gives back every kind exactly") {
  const Json j = parse(R"({"null": null, "yes": true, "int": -9223372036854775808,
      "uint": 18446744073709551615, "pi": 3.14159, "text": "a\u00e9\ud83d\ude00\n", "list": [1, [2]],
      "empty": {}})");
  CHECK(j.at("null").is_null());
  CHECK(j.at("yes").as_bool());
  CHECK(j.at("int").as_int() == std::numeric_limits<std::int64_t>::min());
  CHECK(j.at("uint").as_uint() == std::numeric_limits<std::uint64_t>::max());
  CHECK(j.at("pi").as_double() == 3.14159);
  CHECK(j.at("text").as_string() == "a\xc3\xa9\xf0\x9f\x98\x80\n");
  CHECK(j.at("list").at(1).at(0).as_int() == 2);
  CHECK(j.at("empty").size() == 0);
  CHECK(j.find("absent") == nullptr);
  CHECK(j.find_value("null") == nullptr);
  CHECK(j.members()[3].key == "uint");
}

TEST_CASE("An integer beyond 64 bits becomes the nearest double, everything around it stays") {
  const Json j = parse(R"({"n": 1000000000000000019884624838656, "s": "12345678901234567890123",
      "q": "\"12345678901234567890123", "f": 12345678901234567890123.5, "i": 9223372036854775807})");
  CHECK(j.at("n").as_double() == 1e30);
  CHECK(j.at("s").as_string() == "12345678901234567890123");
  CHECK(j.at("q").as_string() == "\"12345678901234567890123");
  CHECK(j.at("f").as_double() == 12345678901234567890123.5);
  CHECK(j.at("i").as_double() == 9223372036854775807.0);
}

TEST_CASE("Errors of type name the source and the path") {
  const Json j = parse(R"({"num_local_experts": "8", "a": {"b": [0, {"c": null}]}, "n": -1})");
  const auto said = [](auto f) { return message_of<FormatError>(f); };
  CHECK(said([&] { (void)j.at("num_local_experts").as_int(); }) ==
        "config.json: at \"num_local_experts\": expected an integer, found a string");
  CHECK(said([&] { (void)j.at("a").at("b").at(1).at("c").as_string(); }) ==
        "config.json: at \"a\".\"b\"[1].\"c\": expected a string, found null");
  CHECK(said([&] { (void)j.at("hidden_size"); }) == "config.json: \"hidden_size\" is missing");
  CHECK(said([&] { (void)j.at("a").at("b").at(2); }) ==
        "config.json: at \"a\".\"b\": element 2 is missing, there are 2");
  CHECK(said([&] { (void)j.at("n").as_uint(); }) ==
        "config.json: at \"n\": expected an integer >= 0, found -1");
  CHECK(said([&] { (void)j.as_bool(); }) == "config.json: expected true or false, found an object");
  const Json part = parse(R"({"outer": [true]})").at("outer").at(0);  // outlives its document
  CHECK(said([&] { (void)part.as_double(); }) ==
        "config.json: at \"outer\"[0]: expected a number, found true or false");
}

TEST_CASE("Text that is not JSON is refused with a reason") {
  CHECK(error(R"({"a": 1, "a": 2})") == "config.json: the key \"a\" stands twice");
  CHECK(error(R"({"x": {"a": 1, "b": 0, "a": 2}})") ==
        "config.json: at \"x\": the key \"a\" stands twice");
  CHECK(error("{\"a\": \"b\xff\"}") == "config.json: byte 8 is not UTF-8; JSON must be UTF-8");
  CHECK(error(std::string(300, '[') + std::string(300, ']')) ==
        "config.json: nested deeper than 256 levels");
  for (const char* text :
       {"", "  ", "{", "[1,]", "[1 2]", "{\"a\" 1}", "{a: 1}", "01", "1.", "nan", "tru", "[1]x",
        "\"\n\"", "'a'", "+1", "1e999", "99999999999999999999x"}) {
    CAPTURE(text);
    CHECK_THAT(error(text), Catch::StartsWith("config.json: not valid JSON: "));
  }
  CHECK_NOTHROW(parse(std::string(256, '[') + std::string(256, ']')));
}

TEST_CASE("What is not JSON is named with its place") {
  const auto place = [](std::string_view text) {
    const std::string said = error(text);
    return said.substr(said.rfind(", at ") + 5);
  };
  CHECK(place("[1 2]") == "column 4");
  CHECK(place("{\n  \"\u00e4\": tru\n}") == "line 2, column 8");
  CHECK(place("[1]\nx") == "line 2, column 1");
  CHECK(place("[\"a\n\"]") == "line 1, column 4");
  CHECK(place("[1,\n \"a]") == "line 2, column 2");
  CHECK(place("[1.]") == "column 2");
  CHECK(place("[\"ab\", \"\\q\"]") == "column 8");
  CHECK_THAT(error("\xef\xbb\xbf{}"), Catch::Contains("begins with a byte order mark (BOM)"));
  CHECK_THAT(error(std::string_view("\xff\xfe{\0}\0", 6)), Catch::Contains("is UTF-16"));
  CHECK_THAT(error(std::string_view("\xfe\xff\0{\0}", 6)), Catch::Contains("is UTF-16"));
  CHECK_THAT(error(std::string_view("{\0}\0", 4)), Catch::Contains("is UTF-16"));
}

TEST_CASE("An integer of the wrong range is told as it is") {
  const Json j = parse(R"({"big": 9223372036854775808, "least": -1})");
  const auto said = [](auto f) { return message_of<FormatError>(f); };
  CHECK(said([&] { (void)j.at("big").as_int(); }) ==
        "config.json: at \"big\": expected an integer below 2^63, found 9223372036854775808");
  CHECK(said([&] { (void)j.at("least").as_uint(); }) ==
        "config.json: at \"least\": expected an integer >= 0, found -1");
}

TEST_CASE("A part of a document can be copied, changed and kept") {
  Json part;
  {
    Json j = parse(R"({"list": [1, "two", {"three": [3.5]}], "empty": [], "none": null})");
    Json copy = j;
    copy["list"].push_back("four");
    copy["empty"].push_back(j.at("list"));
    copy["none"]["made"] = 5;
    CHECK(dump(copy) == R"({"list":[1,"two",{"three":[3.5]},"four"],)"
                        R"("empty":[[1,"two",{"three":[3.5]}]],"none":{"made":5}})");
    CHECK(dump(j) == R"({"list":[1,"two",{"three":[3.5]}],"empty":[],"none":null})");
    part = std::move(copy["list"]);
    j = part.at(2);
    CHECK(dump(j) == R"({"three":[3.5]})");
  }
  CHECK(message_of<FormatError>([&] { (void)part.at(2).at("three").at(0).as_int(); }) ==
        "config.json: at \"list\"[2].\"three\"[0]: expected an integer, found a number");
  for (int i = 0; i < 40; ++i) part.push_back(i);
  CHECK(part.at(43).as_int() == 39);
}

TEST_CASE("Doubles are written as Python writes them and read back the same") {
  const std::pair<double, const char*> cases[] = {{1e-5, "1e-05"},
                                                  {0.0001, "0.0001"},
                                                  {1000000.0, "1000000.0"},
                                                  {0.1, "0.1"},
                                                  {1e16, "1e+16"},
                                                  {1e15, "1000000000000000.0"},
                                                  {-0.0, "-0.0"},
                                                  {5e-324, "5e-324"},
                                                  {1.5e300, "1.5e+300"},
                                                  {123.456, "123.456"},
                                                  {0.041666666666666664, "0.041666666666666664"},
                                                  {1.0 / 3, "0.3333333333333333"},
                                                  {9007199254740993.0, "9007199254740992.0"}};
  for (const auto& [value, text] : cases) {
    CHECK(dump(Json(value)) == text);
    CHECK(parse(text).as_double() == value);
  }
  CHECK(dump(Json(std::nan(""))) == "null");
  CHECK(dump(Json(std::numeric_limits<double>::infinity())) == "null");
}

TEST_CASE("Strings are escaped as Python escapes them, and bad UTF-8 never gets out") {
  const Json j(std::string("\"\\/\b\f\n\r\t\x01\x7f\xc3\xa9\xf0\x9f\x98\x80"));
  CHECK(dump(j) == "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\x7f\xc3\xa9\xf0\x9f\x98\x80\"");
  CHECK(dump_python(j) == "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u007f\\u00e9\\ud83d\\ude00\"");
  CHECK(parse(dump_python(j)) == j);
  CHECK(dump(Json("a\xff\xc3")) == "\"a\xef\xbf\xbd\xef\xbf\xbd\"");
  CHECK(dump_python(Json("\xed\xa0\x80")) == "\"\\ufffd\\ufffd\\ufffd\"");
}

TEST_CASE("Layout: compact, Python's default, and indented") {
  Json j = Json::object();
  j["b"] = Json::array(std::vector<int>{1, 2});
  j["a"]["x"] = nullptr;
  j["e"] = Json::array();
  j["o"] = Json::object();
  CHECK(dump(j) == R"({"b":[1,2],"a":{"x":null},"e":[],"o":{}})");
  CHECK(dump_python(j) == R"({"b": [1, 2], "a": {"x": null}, "e": [], "o": {}})");
  CHECK(dump(j, 2) ==
        "{\n  \"b\": [\n    1,\n    2\n  ],\n  \"a\": {\n    \"x\": null\n  },\n  \"e\": [],\n"
        "  \"o\": {}\n}");
  CHECK(parse(dump(j, 2)) == j);
}

TEST_CASE("Keys can be added, changed and erased, and keep their order") {
  Json j = parse(R"({"z": 1, "m": 2, "a": 3, "k": 4})");
  j.erase("m");
  j.erase("absent");
  j["k"] = "four";
  j["b"] = 5;
  CHECK(dump(j) == R"({"z":1,"a":3,"k":"four","b":5})");
  CHECK(j.at("a").as_int() == 3);
  CHECK(j.at("b").as_int() == 5);
  CHECK(j.find("m") == nullptr);
}

TEST_CASE("JSON lines: blank lines are skipped, an error names its line") {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "train.jsonl", "{\"a\": 1}\r\n\n  \n[2]\n{\"a\": 3}");
  const std::vector<Json> lines = read_jsonl(folder / "train.jsonl");
  REQUIRE(lines.size() == 3);
  CHECK(lines[1].at(0).as_int() == 2);
  CHECK(lines[2].at("a").as_int() == 3);
  CHECK(message_of<FormatError>([&] { (void)lines[2].at("b"); }, folder.path()) ==
        "train.jsonl: line 5: \"b\" is missing");
  test::write_bytes(folder / "bad.jsonl", "1\n\n{\"a\": }\n");
  CHECK_THAT(
      message_of<FormatError>([&] { (void)read_jsonl(folder / "bad.jsonl"); }, folder.path()),
      Catch::StartsWith("bad.jsonl: line 3: not valid JSON: "));
}
