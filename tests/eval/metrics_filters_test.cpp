// SPDX-License-Identifier: Apache-2.0
// Filters of answers and exact match, as lm-evaluation-harness 0.4.13 applies them: expected values
// come from its classes of the same names (`RegexFilter(pattern, group).apply([responses],
// [doc])`).
#include <espalier/eval/metrics/answer_filter.hpp>
#include <espalier/eval/metrics/exact_match.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::eval::metrics;
using espalier::test::message_of;
using Texts = std::vector<std::string>;

TEST_CASE("filters: both answers of GSM8K are lm-evaluation-harness'", "[eval][metrics]") {
  const Texts responses = {"The answer is 12.\n#### 1,234",
                           "#### -7. Then #### 8",
                           "it costs $3.50 or 42 dollars.",
                           "no digits",
                           "Total: $1,000, i.e. 1000.",
                           "#### $5",
                           "A: ٣٤ and 5",
                           "",
                           "x = -3, y=-",
                           "1. 2. 3",
                           "#### 18\n\nQuestion:"};
  const std::string none(kInvalidAnswer);
  CHECK(AnswerFilter::parse("regex", {{"pattern", std::string(kGsm8kStrict)}}, "t")
            .apply(responses) ==
        Texts{"1,234", "-7.", none, none, none, none, none, none, none, none, "18"});
  CHECK(
      AnswerFilter::parse("regex", {{"pattern", std::string(kGsm8kFlexible)}, {"group", "-1"}}, "t")
          .apply(responses) ==
      Texts{"1,234", "8", "42", none, "1000.", "$5", "5", none, "-3,", "3", "18"});
}

TEST_CASE("filters: empty matches and groups as in Python's findall", "[eval][metrics]") {
  CHECK(AnswerFilter::regex({"(a*)(b*)", -1, "none"}, "t").apply({"xx", "ab x"}) ==
        Texts{"none", "none"});
  CHECK(AnswerFilter::regex({"(a*)", 0, "none"}, "t").apply({"ba"}) == Texts{""});
  CHECK(AnswerFilter::regex({"(\\d)", 1, "none"}, "t").apply({"a1b2", "a1"}) == Texts{"2", "none"});
  // re.sub('x*', '-', 'abxd'), re.findall('|a', 'aa')
  CHECK(PythonRegex("x*", "t").substitute("abxd", "-") == "-a-b--d-");
  CHECK(PythonRegex("|a", "t").find_all("aa").size() == 5);
  CHECK(PythonRegex("a$", "t").search("ba\n"));
  CHECK_FALSE(PythonRegex("a\\Z", "t").search("ba\n"));
  CHECK_FALSE(PythonRegex("^b", "t").search("a\nb"));
  CHECK(PythonRegex("\\bé\\b", "t").search("un é."));
  CHECK_FALSE(PythonRegex("\\bn\\b", "t").search("né"));
  // Bytes that are no UTF-8 become U+FFFD before a pattern sees them.
  CHECK(AnswerFilter::regex({".$", 0, "none"}, "t").apply({"a\xff"}) == Texts{"\xEF\xBF\xBD"});
}

TEST_CASE("filters: the letter of a choice", "[eval][metrics]") {
  const Texts choices = {"Guilty", "Guilty of Romance", "The «Moon»", "Sun."};
  const AnswerFilter filter = AnswerFilter::parse("multi_choice_regex",
                                                  {{"pattern", "(\\([A-Z]\\))"},
                                                   {"ignore_case", "true"},
                                                   {"ignore_punctuation", "true"},
                                                   {"ignore", "\\bthe\\b"}},
                                                  "t");
  CHECK(filter.apply({"I pick (C)", "it is guilty of romance!", "moon, the sun", "Answer:  D",
                      "nothing", "the Sun", "Answer: E"},
                     choices) ==
        Texts{"(C)", "(B)", "(D)", "(D)", "[invalid]", "(D)", "[invalid]"});
  CHECK_THAT(message_of<UsageError>([&] { (void)filter.apply({"x"}); }),
             Catch::Contains("needs 1 to 26 choices of a question, found 0"));
}

TEST_CASE("filters: of one response and of several", "[eval][metrics]") {
  const auto filter = [](std::string_view name, const AnswerFilter::Arguments& arguments = {}) {
    return AnswerFilter::parse(name, arguments, "mine.json");
  };
  CHECK(filter("remove_whitespace").apply({"\u3000 a b\n", "\x1f"}) == Texts{"a b", ""});
  CHECK(filter("lowercase").apply({"ÄB"}) == Texts{"äb"});
  CHECK(filter("uppercase").apply({"äb"}) == Texts{"ÄB"});
  CHECK(filter("map", {{"A", "yes"}, {"default", "?"}, {"B", "no"}}).apply({"B", "C", "A"}) ==
        Texts{"no", "?", "yes"});
  CHECK(filter("take_first").apply({"a", "b"}) == Texts{"a"});
  CHECK(filter("take_first_k", {{"k", "2"}}).apply({"a", "b", "c"}) == Texts{"a", "b"});
  CHECK(filter("majority_vote").apply({"a", "b", "c", "c", "b"}) == Texts{"b"});
  const std::vector<AnswerFilter> chain = {filter("regex", {{"pattern", "[A-Z]"}}),
                                           filter("lowercase"), filter("take_first")};
  CHECK(apply_filters(chain, {"is B", "A"}) == Texts{"b"});
}

TEST_CASE("filters: what is wrong with a filter is said with its place", "[eval][metrics]") {
  const auto message = [](std::string_view name, const AnswerFilter::Arguments& arguments) {
    return message_of<FormatError>(
        [&] { (void)AnswerFilter::parse(name, arguments, "mine.json"); });
  };
  CHECK_THAT(message("regexp", {}), Catch::StartsWith("mine.json: \"regexp\" is no filter; there "
                                                      "are regex, multi_choice_regex, "));
  CHECK(message("regex", {}) == "mine.json: the filter \"regex\" needs one \"pattern\", found 0");
  CHECK_THAT(message("regex", {{"pattern", "(a"}}),
             Catch::StartsWith("mine.json: pattern '(a' does not compile: "));
  CHECK(message("regex", {{"pattern", "a"}, {"group", "last"}}) ==
        "mine.json: \"group\" of the filter \"regex\": expected an integer, found 'last'");
  CHECK(message("take_first", {{"k", "1"}}) ==
        "mine.json: \"k\" is no argument of the filter \"take_first\"");
  CHECK_THAT(message("take_first_k", {{"k", "0"}}), Catch::Contains("expected k above 0, found 0"));
  CHECK_THAT(message_of<UsageError>([] { (void)AnswerFilter::take_first().apply({}); }),
             Catch::Contains("take_first needs 1 responses to a question, found 0"));
  // (a+)+$ is exponential where it fails: an error, not an hour.
  CHECK_THAT(message_of<FormatError>([] {
               (void)AnswerFilter::regex({"(a+)+$", 0, ""}, "mine.json")
                   .apply({std::string(40, 'a') + "!"});
             }),
             Catch::Contains("needs too much work"));
}

TEST_CASE("exact_match: equal but for what is ignored", "[eval][metrics]") {
  // lm_eval.api.metrics.exact_match_hf_evaluate([p], [r], regexes_to_ignore=..., ignore_case=True)
  const ExactMatch gsm8k(gsm8k_exact_match(), "gsm8k");
  CHECK(gsm8k("18", "Thus 9*2.\n#### 18") == 1);
  CHECK(gsm8k("1,234.", "#### 1234") == 1);
  CHECK(gsm8k("$5", "#### 5") == 1);
  CHECK(gsm8k("5.0", "#### 5") == 0);
  CHECK(gsm8k("18.\n", "#### 18") == 0);
  CHECK(ExactMatch({{}, true, true, true}, "t")("A-b. 3", "ab 4") == 1);
  CHECK(ExactMatch({{}, true, false, false}, "t")("ÄB", "äb") == 1);
  CHECK(ExactMatch({}, "t")("a", "a ") == 0);
  CHECK(ExactMatch({}, "t")("a", Texts{"b", "a"}) == 1);
  CHECK(ExactMatch({}, "t")("a", Texts{}) == 0);
}
