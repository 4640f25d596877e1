// SPDX-License-Identifier: Apache-2.0
#include <espalier/eval/row_template.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::eval;
using espalier::test::message_of;

namespace {

io::Json row() {
  return io::parse_json(
      R"({"question": " Why? ", "n": 3, "yes": true, "choices": {"text": ["a b", "c d"]}, "café": "é!"})",
      "rows.jsonl: line 1");
}
std::string rendered(std::string_view text) {
  return RowTemplate(text, "demo: prompt").render(row());
}

}  // namespace

TEST_CASE("row template: columns, values within them, braces", "[eval]") {
  CHECK(rendered("Q:{question}A:") == "Q: Why? A:");
  CHECK(rendered("{n} of {choices.text.1}") == "3 of c d");
  CHECK(rendered("{{n}} }}{{") == "{n} }{");
  CHECK(rendered("") == "");
  CHECK(rendered("{missing?n}") == "3");
  CHECK(RowTemplate("{choices.text|capitalize}", "").render_list(row()) ==
        std::vector<std::string>{"A b", "C d"});
  CHECK(RowTemplate("{yes}", "").value(row()).as_bool());
}

TEST_CASE("row template: functions", "[eval]") {
  CHECK(rendered("{question|strip}") == "Why?");
  CHECK(rendered("{question|lstrip}") == "Why? ");
  CHECK(rendered("{choices.text.0|before: }/{choices.text.0|after: }") == "a/b");
  CHECK(rendered("{choices.text.0|after:x}") == "");
  CHECK(rendered("{choices.text.0|before:x}") == "a b");
  CHECK(rendered("{question|strip|chop}") == "Why");
  CHECK(rendered("{café|chop}|{café|chop|chop}") == "é|");
  CHECK(rendered("{question|strip|lower_first}") == "why?");
  CHECK(rendered("{n|map:2=two,3=three}") == "three");
}

TEST_CASE("row template: HellaSwag's cleaning is that of its reference", "[eval]") {
  // re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")
  for (const auto& [text, clean] : std::vector<std::pair<std::string, std::string>>{
           {" Cooking [header] How to boil [title] Take a pot. [step] Boil ",
            "Cooking How to boil. Take a pot. Boil"},
           {"a [x] b  c   d", "a b c  d"},
           {"open [ never closed", "open [ never closed"},
           {"no ] opening [y]", "no ] opening "},
           {"[over\nlines] [z]", "[over\nlines] "},
           {"[a [b] c]", " c]"}}) {
    const io::Json json =
        io::parse_json(io::dump(io::Json::array(std::vector<std::string>{text})), "");
    io::Json object = io::Json::object();
    object["t"] = text;
    CHECK(RowTemplate("{t|clean_wikihow}", "").render(object) == clean);
  }
}

TEST_CASE("row template: what is wrong is named", "[eval]") {
  const auto said = [](std::string_view text) {
    return message_of<FormatError>([&] { (void)rendered(text); });
  };
  CHECK(said("{n") == "demo: prompt: \"{\" at 0 has no \"}\"");
  CHECK(said("n}") == "demo: prompt: \"}\" at 1 has no \"{\"");
  CHECK(said("{}") == "demo: prompt: \"{}\" names no column");
  CHECK(said("{n|shout}") == "demo: prompt: \"shout\" in \"{n|shout}\" is no known function");
  CHECK(said("{goal}") ==
        "rows.jsonl: line 1: demo: prompt needs the column \"goal\"; the row has question, n, yes, "
        "choices, café");
  CHECK_THAT(said("{choices}"), Catch::StartsWith("rows.jsonl: line 1") &&
                                    Catch::Contains("expected a string, found an object"));
  CHECK_THAT(said("{n|map:1=one}"), Catch::Contains("\"3\" is none of 1=one"));
}
