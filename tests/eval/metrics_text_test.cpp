// SPDX-License-Identifier: Apache-2.0
// Metrics of generated texts. Expected values come from the programs that the heads name, called as
// the comments say (sacrebleu 2.5, rouge_score 0.1.2, nltk 3.9, LightEval 0.13).
#include <espalier/eval/metrics/bleu.hpp>
#include <espalier/eval/metrics/chrf.hpp>
#include <espalier/eval/metrics/copying.hpp>
#include <espalier/eval/metrics/drop.hpp>
#include <espalier/eval/metrics/porter_stemmer.hpp>
#include <espalier/eval/metrics/python_number.hpp>
#include <espalier/eval/metrics/python_text.hpp>
#include <espalier/eval/metrics/rouge.hpp>
#include <espalier/eval/metrics/sentences.hpp>
#include <espalier/eval/metrics/ter.hpp>
#include <espalier/eval/metrics/text_match.hpp>
#include <espalier/eval/metrics/word_tokens.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::eval::metrics;
using Catch::Matchers::WithinAbs;
using espalier::test::message_of;
using Texts = std::vector<std::string>;

namespace {

/// Three sentences with one reference each, or with two.
std::vector<Translation> corpus(bool two) {
  std::vector<Translation> c = {
      {"The cat sat on the mat, didn't it?", {"The cat is sitting on the mat, isn't it?"}},
      {"A 3,5-fold rise (of 2.5%) was seen - again.", {"There was a 3,5-fold rise of 2.5% again."}},
      {"Kurz & gut", {"Kurz und gut!"}}};
  const Texts second = {"On the mat sat the cat , did it not ?",
                        "Again a rise (3,5-fold, of 2.5%) was seen.", "Kurz & knapp"};
  for (std::size_t i = 0; two && i < c.size(); ++i) c[i].references.push_back(second[i]);
  return c;
}

}  // namespace

TEST_CASE("translations: BLEU, chrF, chrF++ and TER are sacrebleu's", "[eval][metrics]") {
  // sacrebleu.BLEU().corpus_score(hypotheses, references).score, CHRF(), CHRF(word_order=2), TER()
  CHECK_THAT(corpus_bleu(corpus(false)), WithinAbs(29.4467310498826, 1e-9));
  CHECK_THAT(corpus_bleu(corpus(true)), WithinAbs(46.660662207803256, 1e-9));
  CHECK_THAT(corpus_chrf(corpus(false)), WithinAbs(49.856361563681574, 1e-9));
  CHECK_THAT(corpus_chrf(corpus(true)), WithinAbs(57.073395889210424, 1e-9));
  CHECK_THAT(corpus_chrf(corpus(false), 2), WithinAbs(49.38071990651945, 1e-9));
  CHECK_THAT(corpus_chrf(corpus(true), 2), WithinAbs(55.40872933529065, 1e-9));
  CHECK_THAT(corpus_ter(corpus(false)), WithinAbs(55.0, 1e-9));
  CHECK_THAT(corpus_ter(corpus(true)), WithinAbs(47.61904761904761, 1e-9));
}

TEST_CASE("translations: nothing to compare", "[eval][metrics]") {
  const std::vector<Translation> empty = {{"", {"a b"}}};
  CHECK(corpus_bleu(empty) == 0);
  CHECK(corpus_chrf(empty) == 0);
  CHECK(corpus_ter(empty) == 100);
  CHECK(corpus_ter(std::vector<Translation>{{"", {""}}}) == 0);
  CHECK(corpus_bleu({}) == 0);
  const std::vector<Translation> none = {{"a", {"a"}}, {"a", {}}};
  for (const auto& score : {+[](const std::vector<Translation>& c) { return corpus_bleu(c); },
                            +[](const std::vector<Translation>& c) { return corpus_chrf(c); },
                            +[](const std::vector<Translation>& c) { return corpus_ter(c); }}) {
    CHECK_THAT(message_of<UsageError>([&] { (void)score(none); }),
               Catch::Contains("translation 1 has no reference to compare with"));
  }
}

TEST_CASE("translations: a block that moves is one edit", "[eval][metrics]") {
  const auto edits = [](std::string_view a, std::string_view b) {
    return translation_edits(split(a), split(b));
  };
  CHECK(edits("c d e a b", "a b c d e") == 1);
  CHECK(edits("a x c", "a b c") == 1);
  CHECK(edits("", "a b") == 2);
  CHECK(edits("a b", "") == 2);
}

TEST_CASE("sentence_bleu: one order against several references", "[eval][metrics]") {
  // nltk.translate.bleu_score.sentence_bleu([...], ..., weights=[0, 1, 0, 0])
  CHECK_THAT(sentence_bleu({"a c c e", {"a b c d", "a c c"}}, 2), WithinAbs(2.0 / 3, 1e-12));
  CHECK(sentence_bleu({"x", {"a"}}, 1) == 0);
  CHECK_THAT(message_of<UsageError>([] {
               (void)sentence_bleu({"x", {"a"}}, 5);
             }),
             Catch::Contains("order 5, expected 1 to 4"));
}

TEST_CASE("rouge: with and without stems as rouge_score", "[eval][metrics]") {
  const std::string reference =
      "Running dogs were happily jumping.\nThe relational database failed, twice.";
  const std::string prediction =
      "The dog was running and jumped happily.\nA database, relational, failed.";
  const OverlapScore r = rouge_n(reference, prediction, 1);
  CHECK_THAT(r.precision, WithinAbs(0.5454545454545454, 1e-12));
  CHECK_THAT(r.recall, WithinAbs(0.6, 1e-12));
  CHECK_THAT(r.f, WithinAbs(0.5714285714285713, 1e-12));
  CHECK_THAT(rouge_n(reference, prediction, 1, true).f, WithinAbs(0.761904761904762, 1e-12));
  CHECK(rouge_n(reference, prediction, 2).f == 0);
  CHECK_THAT(rouge_l(reference, prediction).f, WithinAbs(0.380952380952381, 1e-12));
  CHECK_THAT(rouge_lsum(reference, prediction).f, WithinAbs(0.47619047619047616, 1e-12));
  CHECK(rouge_l("", "a").f == 0);
  CHECK(rouge_lsum("\n", "").f == 0);
  // nltk.stem.porter.PorterStemmer().stem(word); on 67,392 words of the test data none differs
  const std::vector<std::pair<std::string, std::string>> stems = {
      {"relational", "relat"},  {"happily", "happili"},  {"flies", "fli"},
      {"dies", "die"},          {"hopping", "hop"},      {"hoping", "hope"},
      {"agreed", "agre"},       {"enjoy", "enjoy"},      {"biologi", "biolog"},
      {"rationalli", "ration"}, {"controll", "control"}, {"skies", "sky"},
      {"adoption", "adopt"},    {"gas", "ga"},           {"as", "as"}};
  for (const auto& [word, stem] : stems) CHECK(porter_stem(word) == stem);
}

TEST_CASE("words: those of the Penn Treebank", "[eval][metrics]") {
  // nltk.tokenize.treebank.TreebankWordTokenizer().tokenize(text)
  CHECK(treebank_tokens("They'll save (3,36 euros): \"can't\" wait... cannot--stop.") ==
        Texts{"They", "'ll", "save", "(", "3,36", "euros", ")", ":", "``", "ca", "n't", "''",
              "wait", "...", "can", "not", "--", "stop", "."});
  CHECK(treebank_tokens("He said, 'hi' to dogs' owners; it's $5.5!") ==
        Texts{"He", "said", ",", "'hi", "'", "to", "dogs", "'", "owners", ";", "it", "'s", "$",
              "5.5", "!"});
  CHECK(word_tokens("One. Two.") == Texts{"One", ".", "Two", "."});
  CHECK(treebank_tokens("").empty());
}

TEST_CASE("sentences: ends, abbreviations and initials", "[eval][metrics]") {
  CHECK(
      split_sentences("Dr. Who met J. Doe at 3.5 p.m. yesterday. \"Why?\" he asked! (Yes.) End") ==
      Texts{"Dr. Who met J. Doe at 3.5 p.m. yesterday.", "\"Why?\" he asked!", "(Yes.)", "End"});
  CHECK(split_sentences("A title\n\nIt went on... and on.\n1. Item") ==
        Texts{"A title", "It went on... and on.", "1.", "Item"});
  CHECK(split_sentences(" \n\n ").empty());
}

TEST_CASE("text_match: whole, prefix, suffix, and quasi", "[eval][metrics]") {
  CHECK(text_match(" Paris", "Paris\n") == 1);
  CHECK(text_match("Paris", "Paris.") == 0);
  CHECK(text_match("Paris", "Paris, I think", {MatchKind::prefix}) == 1);
  CHECK(text_match("Paris", "It is Paris", {MatchKind::suffix}) == 1);
  CHECK(text_match("Paris", " Paris", {MatchKind::full, TextNormalizer::none, false}) == 0);
  CHECK(text_match("", "") == 0);
  CHECK(text_match("7", "The 7.0!", {MatchKind::full, TextNormalizer::helm}) == 0);
  CHECK(text_match("the 7", "7!", {MatchKind::full, TextNormalizer::helm}) == 1);
  CHECK(best_pair(Texts{"a", "b"}, Texts{"c", "b"},
                  [](const auto& g, const auto& p) { return text_match(g, p); }) == 1);
  // lighteval.metrics.normalizations.helm_normalizer(text)
  const auto helm = [](std::string_view text) {
    return normalize_text(text, TextNormalizer::helm);
  };
  CHECK(helm("The U.S.-led, 1,000.50 a-team") == "us led 100050.0 team");
  CHECK(helm("1e5 infinity") == "100000.0 inf");
  CHECK(helm("An  apple; the\tpear") == "apple pear");
  CHECK(helm("-3.0 3") == "30.0 3.0");
  CHECK(helm("cafés—the") == "cafés—");
  CHECK(normalize_text("It's É.", TextNormalizer::triviaqa) == "its é");
}

TEST_CASE("f1: sets of words, and SQuAD's bags", "[eval][metrics]") {
  CHECK_THAT(word_set_f1("a a b", "a c"), WithinAbs(0.5, 1e-12));
  CHECK(word_set_f1("", "a") == 0);
  // Bags {x, x, y} and {x, x, z, z}: 2 common of 4 and 3.
  CHECK_THAT(token_f1("The x, x y", "x x z a z!"), WithinAbs(4.0 / 7, 1e-12));
  CHECK(token_f1("the", "a.") == 1);
  CHECK(token_f1("x", "") == 0);
}

TEST_CASE("drop: spans are paired for the best sum", "[eval][metrics]") {
  // lighteval...DropMetrics()._get_metrics(prediction, gold)
  const auto scores = [](const Texts& gold, const Texts& prediction) {
    const DropScores s = drop_scores(std::vector<Texts>{gold}, prediction);
    return std::pair(s.em, s.f1);
  };
  CHECK(scores({"12 yards"}, {"12.0 Yards"}) == std::pair(1.0, 1.0));
  CHECK(scores({"the -3.5 degrees", "Paris"}, {"paris", "-3.5"}) == std::pair(0.0, 0.83));
  CHECK(scores({"John Smith", "Bob"}, {"bob jones", "smith", "x"}) == std::pair(0.0, 0.44));
  CHECK(scores({"5 dogs"}, {"6 dogs"}) == std::pair(0.0, 0.0));
  CHECK(scores({"a", "b c", "c d"}, {"c", "b d"}) == std::pair(0.0, 0.39));
  CHECK(drop_scores(std::vector<Texts>{{" "}, {"x"}}, {"x"}).em == 1);
  CHECK_THAT(message_of<UsageError>([] { (void)drop_scores({}, {}); }),
             Catch::Contains("answers of 1 to 64 spans, found 0"));
}

TEST_CASE("python: numbers are read and printed as there", "[eval][metrics]") {
  CHECK(python_repr(1e16) == "1e+16");
  CHECK(python_repr(123456789.125) == "123456789.125");
  CHECK(python_repr(1e-5) == "1e-05");
  CHECK(python_repr(0.0001) == "0.0001");
  CHECK(python_repr(-0.0) == "-0.0");
  CHECK(python_repr(5e-324) == "5e-324");
  CHECK(python_float("1_000") == 1000);
  CHECK(python_float(" +3.5e-2 ") == 0.035);
  CHECK(python_float("5.") == 5);
  CHECK(python_float("Infinity") == std::numeric_limits<double>::infinity());
  CHECK(python_float("-1e400") == -std::numeric_limits<double>::infinity());
  for (const char* wrong : {"", "1__0", "_1", ".", "1e", "0x10", "1 2", "--1"}) {
    CHECK_FALSE(python_float(wrong));
  }
}

TEST_CASE("copying: prefixes, edits and fragments", "[eval][metrics]") {
  const StringDistance d = string_distance("one two three four", " one two free");
  CHECK(d.longest_common_prefix_length == 2);  // against "one two thre"
  CHECK(d.edit_distance == 1);
  CHECK_THAT(d.edit_similarity, WithinAbs(2.0 / 3, 1e-12));
  CHECK(string_distance("a", "").edit_similarity == 0);
  // Fragments "a b" and "d": 3 of 4 words, (4 + 1) / 4, 5 / 4.
  const Extractiveness e = extractiveness("{x a b c d}", "A b d q");
  CHECK_THAT(e.coverage, WithinAbs(0.75, 1e-12));
  CHECK_THAT(e.density, WithinAbs(1.25, 1e-12));
  CHECK_THAT(e.compression, WithinAbs(1.25, 1e-12));
  CHECK(extractiveness("a", "").compression == 0);
}
