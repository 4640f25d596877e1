// SPDX-License-Identifier: Apache-2.0
// Metrics and filters of generated text: the input is a gold and a response, between which a zero
// byte stands.
#include <espalier/eval/metrics.hpp>

#include "fuzz.hpp"

using namespace espalier;
using namespace espalier::eval::metrics;

ESP_FUZZ(text) {
  const std::string gold(text.substr(0, text.find('\0')));
  const std::string response(text.substr(std::min(text.size(), gold.size() + 1)));
  const GeneratedAnswer answer = {{gold}, {response}, 4, gold};
  for (const AnswerMetric& m : answer_metrics()) {
    fuzz::accepts([&] {
      for (const auto& [name, value] : m.scores(answer)) fuzz::require(value == value);
    });
  }
  for (const CorpusMetric& m : corpus_metrics()) {
    fuzz::accepts([&] { fuzz::require(m.score(std::vector{answer}) >= 0); });
  }
  fuzz::accepts([&] {
    for (const char* score : {"exact", "math", "math_expression", "math_latex", "letter", "gpqa"}) {
      (void)score_samples(answer, 1, sample_score(score, 4, "fuzz"));
    }
  });
  // What has a value equals itself.
  if (const std::optional<MathValue> v = MathValue::parse(response)) fuzz::require(v->equals(*v));
  fuzz::accepts([&] {
    (void)AnswerFilter::regex({std::string(kGsm8kFlexible), -1, ""}, "fuzz").apply({response});
    (void)AnswerFilter::multi_choice({{"(\\([A-Z]\\))"}, true, true, {}}, "fuzz")
        .apply({response}, std::vector{gold, std::string("b")});
    (void)ExactMatch(gsm8k_exact_match(), "fuzz")(response, gold);
  });
  (void)rouge_lsum(gold, response, true);
  const io::Json kwargs = io::parse_json(
      R"({"num_sentences": 2, "relation": "at least", "num_paragraphs": 2, "nth_paragraph": 1,
          "first_word": "a", "num_words": 3, "num_bullets": 1, "num_highlights": 1,
          "num_placeholders": 1, "postscript_marker": "P.S.", "section_spliter": "Section",
          "num_sections": 1, "keywords": ["a"], "keyword": "a", "frequency": 1,
          "forbidden_words": ["a"], "letter": "a", "let_frequency": 1, "let_relation": "at least",
          "prompt_to_repeat": "a", "end_phrase": "a", "capital_frequency": 1,
          "capital_relation": "less than"})",
      "fuzz");
  for (const std::string& id : checked_instructions()) {
    fuzz::accepts([&] { (void)follows_instruction(id, kwargs, response); });
  }
}
