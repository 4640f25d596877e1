// SPDX-License-Identifier: Apache-2.0
// Mathematical answers and letters of answers. Expected values of the normal forms come from
// lm-evaluation-harness 0.4.13 (tasks hendrycks_math and minerva_math), those of matches from
// LightEval 0.13 with sympy, those of values from arithmetic.
#include <espalier/eval/metrics/letter_answer.hpp>
#include <espalier/eval/metrics/math_answer.hpp>
#include <espalier/eval/metrics/math_match.hpp>
#include <espalier/eval/metrics/math_value.hpp>
#include <espalier/eval/metrics/named_metrics.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::eval::metrics;
using espalier::test::message_of;
using Texts = std::vector<std::string>;

namespace {

bool same(std::string_view a, std::string_view b) {
  const auto x = MathValue::parse(a), y = MathValue::parse(b);
  return x && y && x->equals(*y);
}

}  // namespace

TEST_CASE("values: exact arithmetic with fractions, roots, pi and letters", "[eval][metrics]") {
  CHECK(same("\\frac{1}{1+\\sqrt{2}}", "\\sqrt2-1"));
  CHECK(same("\\sqrt{12}", "2\\sqrt{3}"));
  CHECK(same("\\frac{\\sqrt{3}}{3}", "1/\\sqrt{3}"));
  CHECK(same("\\sqrt{\\frac{1}{2}}", "\\frac{\\sqrt{2}}{2}"));
  CHECK(same("\\frac{n(n+1)}{2}", "(n^2+n)/2"));
  CHECK(same("(x+1)(x-1)", "x^2-1"));
  CHECK(same("\\frac{x^2-1}{x-1}", "x+1"));
  CHECK(same("3\\frac{1}{2}", "3.5"));
  CHECK(same("50%", "1/2"));
  CHECK(same("1,234,567.5", "2469135/2"));
  CHECK(same("2\u03c0", "2\\pi"));
  CHECK(same("-2^2", "-4"));
  CHECK(same("2^{-3}", "0.125"));
  CHECK(same("8^{1/3}", "\\sqrt[3]{8}"));
  CHECK(same("9^{0.5}", "3"));
  CHECK(same("\\sqrt{x+1}", "\\sqrt{1+x}"));
  CHECK_FALSE(same("\\sqrt{x+1}", "\\sqrt{x+2}"));
  CHECK_FALSE(same("0.333333", "1/3"));
  CHECK_FALSE(same("3.14159", "\\pi"));
}

TEST_CASE("values: what has none, and limits", "[eval][metrics]") {
  for (const char* text : {"", "1/0", "\\sqrt{-1}", "(1", "1)", "\\text{no}", "word", "1,2", "+",
                           "x^y", "\\frac{1}", "2^{1000}", "\\sin x", "1..2", "{}", "\xff"}) {
    CAPTURE(text);
    CHECK_FALSE(MathValue::parse(text));
  }
  CHECK_FALSE(MathValue::parse(std::string(100, '(') + "1" + std::string(100, ')')));
  CHECK_FALSE(MathValue::parse(std::string(60, '9')));
  CHECK_FALSE(MathValue::parse("(a+b+c+d+f+g)^{60}"));
  std::string nested = "x";
  for (int i = 0; i < 12; ++i) nested = "\\sqrt{(1+" + nested + ")^{64}}";
  CHECK_FALSE(MathValue::parse(nested));
}

TEST_CASE("boxed: the last one, with balanced braces", "[eval][metrics]") {
  CHECK(last_boxed("so \\boxed{5} and \\boxed{\\frac{1}{2}}.") == "\\frac{1}{2}");
  CHECK(last_boxed("x \\boxed 7$ and") == "7");
  CHECK(last_boxed("\\fbox{3}") == "3");
  CHECK(last_boxed("\\boxed{}") == "");
  CHECK_FALSE(last_boxed("\\boxed{a{b}c"));
  CHECK_FALSE(last_boxed("none"));
  CHECK_FALSE(last_boxed("\\boxed"));
}

TEST_CASE("math: Hendrycks' and Minerva's normal forms", "[eval][metrics]") {
  // lm_eval.tasks.hendrycks_math.utils.strip_string(text)
  const std::vector<std::pair<std::string, std::string>> hendrycks = {
      {"\\frac12", "\\frac{1}{2}"},
      {"\\frac1{2}", "\\frac{1}{2}"},
      {"\\dfrac{3}{4}", "\\frac{3}{4}"},
      {"0.5", "\\frac{1}{2}"},
      {" .5", "\\frac{1}{2}"},
      {"x=5", "5"},
      {"k = 10", "10"},
      {"3/4", "\\frac{3}{4}"},
      {"-3/4", "\\frac{-3}{4}"},
      {"\\sqrt3", "\\sqrt{3}"},
      {"50\\%", "50"},
      {"\\$5", "5"},
      {"90^\\circ", "90"},
      {"5\\text{ cm}", "5"},
      {"\\left( 1, 2\\right]", "(1,2]"},
      {"\\frac{\\sqrt3}{2}", "\\frac{\\sqrt{3}}{2}"},
      {"a=b=3", "a=b=3"},
      {"", ""}};
  for (const auto& [text, form] : hendrycks) {
    CAPTURE(text);
    CHECK(math_strip(text) == form);
  }
  CHECK(math_is_equiv("x = \\tfrac{1}{2}", "0.5"));
  // lm_eval.tasks.minerva_math.utils.normalize_final_answer(text)
  const std::vector<std::pair<std::string, std::string>> minerva = {
      {"2\\pi cm", "2\\pi"},          {"12 dollars", "12"},
      {"1,234,567", "1234567"},       {"0,1", "0,1"},
      {"\\text{(A)}", "(A)"},         {"\\textbf{7}", "7"},
      {"\\sqrt[3]8", "\\sqrt[3]{8}"}, {"a=b=3", "3"},
      {"\\frac12", "\\frac{1}{2}"},   {"\\boxed{5}", "5"},
      {"\\mbox{10 units}", "10"}};
  for (const auto& [text, form] : minerva) {
    CAPTURE(text);
    CHECK(minerva_normalize(text) == form);
  }
  CHECK(minerva_answer("Final Answer: The final answer is $5$. I hope it is correct.") == "$5$");
  CHECK(minerva_answer("no") == "[invalidanswer]");
}

TEST_CASE("math: equality of answers", "[eval][metrics]") {
  CHECK(math_equal("\\frac{1}{3}", "0.333333"));
  CHECK_FALSE(math_equal("\\frac{1}{3}", "0.3333"));
  CHECK(math_equal("3.14159", "3.141592", 5));
  CHECK(math_equal("x = 5", "5"));
  CHECK(math_equal("(1, 2)", "(1,\\frac{4}{2})"));
  CHECK_FALSE(math_equal("(1,2)", "(2,1)"));
  CHECK(math_equal("\\{1,2\\}", "\\{2,1\\}"));
  CHECK_FALSE(math_equal("\\{1,1\\}", "\\{1,2\\}"));
  CHECK(math_equal("\\text{Friday}", "\\text{Friday}."));
  CHECK_FALSE(math_equal("east", "seat"));
  CHECK_FALSE(math_equal("", "0"));
}

TEST_CASE("math: answers are found as LightEval finds them", "[eval][metrics]") {
  // MultilingualExtractiveMatchMetric(English, (Expr,), (Expr, Latex(boxed first)), precision 5)
  const auto match = [](std::string_view gold, std::string_view text) {
    return math_match(gold, {true, false, false}, text, {true, true, true}, 5);
  };
  CHECK(match("4", "final answer is 4. I hope it is correct. Not 5") == 1);
  CHECK(match("4", "I think 3 + 1 = 4") == 1);
  CHECK(match("4", "so \\boxed{4} or 5") == 1);
  CHECK(match("4", "Let x = 3. The answer is x + 1 = 4, done in 2 steps") == 1);
  CHECK(match("4", "4\n\nQuestion: what is 5?") == 0);
  CHECK(match("3/4", "The answer is 3/4 of it") == 1);
  CHECK(match("0.5", "Answer: 50%") == 1);
  CHECK(match("1,234", "It costs $1,234.") == 1);
  CHECK(match("2*(3+4)", "Answer: 2*(7) = 14") == 1);
  CHECK(match("7", "Answer: unknown. 7") == 1);
  CHECK(match("4", "half") == 0);
  CHECK(extract_math("Answer: $\\alpha$. Or 7", {}) == Texts{"\\alpha", "7"});
  CHECK(extract_math("no number", {}).empty());
  CHECK(extract_math("\\boxed{3}, that is, the answer is 4", {true, true, true}) == Texts{"3"});
  CHECK(extract_math("\\boxed{3}, that is, the final answer is 4", {}) == Texts{"4"});
}

TEST_CASE("math: a long text costs work in proportion", "[eval][metrics]") {
  std::string text;
  for (int i = 0; i < 20000; ++i) text += "answer 1 $ \\( final answer = ";
  CHECK(extract_math(text, {}) == Texts{"1"});
  CHECK(extract_math(std::string(200000, '1'), {}).size() == 1);
  std::string digits;
  for (int i = 0; i < 50000; ++i) digits += "1 ";
  CHECK_FALSE(extract_math(digits + "x", {}).empty());
}

TEST_CASE("letters: by falling priority, the last one", "[eval][metrics]") {
  // extract_target_from_pred(text, lazy_indices_regex(IndicesExtractionConfig("NativeLetters",
  // anywhere), 4, English))
  const std::vector<std::tuple<std::string, char, char>> cases = {
      {"Answer: B", 'B', 'B'},
      {"final answer is A. I hope", 'A', 'A'},
      {"Final Answer for your question is: D", 'D', 'D'},
      {"(B) because", 'B', 'B'},
      {"**C**.", 'C', 'C'},
      {"\nC: x", 'C', 'C'},
      {"I like A, or B. Then Cat", 'B', 0},
      {"zap", 0, 0},
      {"D) yes", 'D', 0},
      {"E", 0, 0}};
  for (const auto& [text, anywhere, anchored] : cases) {
    CAPTURE(text);
    CHECK(LetterAnswer(4, true).extract(text) == anywhere);
    CHECK(LetterAnswer(4, false).extract(text) == anchored);
  }
  CHECK(LetterAnswer(4, true)("B", "It is (B)") == 1);
  CHECK(LetterAnswer(1, true)("B", "B") == 0);
  CHECK_THAT(message_of<UsageError>([] { LetterAnswer(27, true); }),
             Catch::Contains("one of 1 to 26 choices, not 27"));
}

TEST_CASE("metrics by name: found, absent, unknown", "[eval][metrics]") {
  const GeneratedAnswer a = {{"\\boxed{\\frac12}"}, {"I say $0.5$"}};
  CHECK(find_answer_metric("hendrycks_math", "t").scores(a) == NamedScores{{"exact_match", 1}});
  const GeneratedAnswer boxed = {{"\\boxed{\\frac12}"}, {"I say \\boxed{0.5}"}};
  CHECK(find_answer_metric("hendrycks_math", "t").scores(boxed) ==
        NamedScores{{"exact_match", 0}});  // as lm-evaluation-harness: no dollar sign
  CHECK(find_answer_metric("math_value", "t").scores(boxed) ==
        NamedScores{{"extractive_match", 1}});
  const GeneratedAnswer m = {
      {"\\boxed{2\\pi}"}, {"Final Answer: The final answer is $2 \\pi$ cm. I hope it is correct."}};
  CHECK(find_answer_metric("minerva_math", "t").scores(m)[0].second == 1);
  CHECK_THAT(message_of<FormatError>([] { (void)find_answer_metric("bleurt", "mine.json"); }),
             Catch::StartsWith("mine.json: the metric \"bleurt\" is not implemented: it needs"));
  CHECK_THAT(
      message_of<FormatError>([] { (void)find_corpus_metric("blue", "mine.json"); }),
      Catch::Equals("mine.json: \"blue\" is no metric; there are bleu, chrf, chrf_plus, ter, "
                    "f1_score_micro, f1_score_macro"));
  CHECK_THAT(message_of<FormatError>([] { (void)sample_score("sum", 4, "mine.json"); }),
             Catch::StartsWith("mine.json: \"sum\" scores no samples; there are exact, math, "));
  CHECK(score_samples({{"1/2"}, {"0.5", "x", "50%"}}, 3, sample_score("math", 0, "t")) ==
        std::vector{1.0, 0.0, 1.0});
  CHECK_THAT(message_of<UsageError>([] {
               (void)score_samples({{"a"}, {"b"}}, 2, sample_score("exact", 0, "t"));
             }),
             Catch::Contains("a score of 2 samples"));
}
