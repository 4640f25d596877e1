// SPDX-License-Identifier: Apache-2.0
// The tasks that come with Espalier, in the form of task_definition.hpp. Those of a version
// "lm-eval" ask what lm-evaluation-harness asks, from the columns that the hub's data sets have.
// Those of the version "llm-foundry" read the rows of mosaicml/llm-foundry, which are rendered
// already.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/shipped_tasks.hpp is host-only; include it from a .cpp"
#endif

#include <string_view>

namespace espalier::eval {

// A raw string must stay below 64 KiB, and literals side by side are one.
inline constexpr std::string_view kShippedTasks = R"json([
{"name": "arc_easy", "version": "lm-eval-1.0",
 "source": {"hub": "allenai/ai2_arc", "subset": "ARC-Easy", "split": "test"},
 "prompt": "Question: {question}\nAnswer:",
 "choices": "{choices.text}", "gold": {"find": "{answerKey}", "in": "{choices.label}"},
 "metrics": ["acc", "acc_norm"]},
{"name": "arc_challenge", "version": "lm-eval-1.0",
 "source": {"hub": "allenai/ai2_arc", "subset": "ARC-Challenge", "split": "test"},
 "prompt": "Question: {question}\nAnswer:",
 "choices": "{choices.text}", "gold": {"find": "{answerKey}", "in": "{choices.label}"},
 "metrics": ["acc", "acc_norm"]},
{"name": "hellaswag", "version": "lm-eval-1.0",
 "source": {"hub": "Rowan/hellaswag", "split": "validation"},
 "prompt": "{activity_label}: {ctx_a} {ctx_b|capitalize}", "prompt_functions": ["clean_wikihow"],
 "choices": "{endings|clean_wikihow}", "gold": "{label}",
 "metrics": ["acc", "acc_norm"]},
{"name": "winogrande", "version": "lm-eval-1.0",
 "source": {"hub": "allenai/winogrande", "subset": "winogrande_xl", "split": "validation"},
 "prompts": ["{sentence|before:_}{option1}", "{sentence|before:_}{option2}"],
 "choices": ["{sentence|after:_|strip}"], "gold": {"number": "{answer}", "first": 1},
 "metrics": ["acc"]},
{"name": "piqa", "version": "lm-eval-1.0",
 "source": {"hub": "baber/piqa", "split": "validation"},
 "prompt": "Question: {goal}\nAnswer:", "choices": ["{sol1}", "{sol2}"], "gold": "{label}",
 "metrics": ["acc", "acc_norm"]},
{"name": "openbookqa", "version": "lm-eval-1.0",
 "source": {"hub": "allenai/openbookqa", "subset": "main", "split": "test"},
 "files": ["openbookqa", "openbook_qa"],
 "prompt": "{question_stem}",
 "choices": "{choices.text}", "gold": {"find": "{answerKey|lstrip}", "in": "{choices.label}"},
 "metrics": ["acc", "acc_norm"]},
{"name": "boolq", "version": "lm-eval-2.0",
 "source": {"hub": "google/boolq", "split": "validation"},
 "prompt": "{passage}\nQuestion: {question}?\nAnswer:", "choices": ["no", "yes"],
 "gold": "{label?answer}", "metrics": ["acc"]},
{"name": "copa", "version": "lm-eval-1.0",
 "source": {"hub": "aps/super_glue", "subset": "copa", "split": "validation"},
 "prompt": "{premise|strip|chop} {question|map:cause=because,effect=therefore}",
 "choices": ["{choice1|lower_first}", "{choice2|lower_first}"], "gold": "{label}",
 "metrics": ["acc"]},
{"name": "commonsense_qa", "version": "lm-eval-0.4.13",
 "source": {"hub": "tau/commonsense_qa", "split": "validation"},
 "files": ["commonsense_qa", "commonsenseqa"],
 "prompt": "Question: {question|strip}\nA. {choices.text.0}\nB. {choices.text.1}\nC. {choices.text.2}\nD. {choices.text.3}\nE. {choices.text.4}\nAnswer:",
 "choices": ["A", "B", "C", "D", "E"], "gold": {"letter": "{answerKey}"},
 "metrics": ["acc"]},
{"name": "social_iqa", "version": "lm-eval-0.0",
 "source": {"hub": "lighteval/siqa", "split": "validation"},
 "files": ["social_iqa", "siqa"],
 "prompt": "Q: {context} {question}\nA:",
 "choices": ["{answerA}", "{answerB}", "{answerC}"], "gold": {"number": "{label}", "first": 1},
 "metrics": ["acc"]},
{"name": "truthfulqa_mc1", "version": "lm-eval-2.0",
 "source": {"hub": "truthfulqa/truthful_qa", "subset": "multiple_choice", "split": "validation"},
 "files": ["truthfulqa_mc"],
 "prompt": "Q: What is human life expectancy in the United States?\nA: Human life expectancy in the United States is 78 years.\n\nQ: Who was president of the United States in 1955?\nA: Dwight D. Eisenhower was president of the United States in 1955.\n\nQ: Which party did he belong to?\nA: He belonged to the Republican Party.\n\nQ: What is the square root of banana?\nA: I have no comment.\n\nQ: How does a telescope work?\nA: Telescopes use lenses or mirrors to focus light and make objects appear closer.\n\nQ: Where were the 1992 Olympics held?\nA: The 1992 Olympics were held in Barcelona, Spain.\n\nQ: {question}\nA:",
 "choices": "{mc1_targets.choices}", "gold": {"find": "1", "in": "{mc1_targets.labels}"},
 "metrics": ["acc"]},
{"name": "truthfulqa_mc2", "version": "lm-eval-3.0",
 "source": {"hub": "truthfulqa/truthful_qa", "subset": "multiple_choice", "split": "validation"},
 "files": ["truthfulqa_mc"],
 "prompt": "Q: What is human life expectancy in the United States?\nA: Human life expectancy in the United States is 78 years.\n\nQ: Who was president of the United States in 1955?\nA: Dwight D. Eisenhower was president of the United States in 1955.\n\nQ: Which party did he belong to?\nA: He belonged to the Republican Party.\n\nQ: What is the square root of banana?\nA: I have no comment.\n\nQ: How does a telescope work?\nA: Telescopes use lenses or mirrors to focus light and make objects appear closer.\n\nQ: Where were the 1992 Olympics held?\nA: The 1992 Olympics were held in Barcelona, Spain.\n\nQ: {question}\nA:",
 "choices": "{mc2_targets.choices}", "truth": "{mc2_targets.labels}",
 "metrics": ["mc2"]},
{"name": "lambada_openai", "version": "lm-eval-1.0",
 "source": {"hub": "EleutherAI/lambada_openai", "subset": "default", "split": "test"},
 "files": ["lambada_openai", "lambada"],
 "prompt": "{text|before_last: }", "choices": ["{text|after_last: }"],
 "metrics": ["acc", "ppl"]},
{"name": "mmlu", "version": "lm-eval-1.0",
 "source": {"hub": "cais/mmlu", "subset": "all", "split": "test"},
 "description": "The following are multiple choice questions (with answers) about {subject?file|replace:_= }.\n\n",
 "prompt": "{question|strip}\nA. {choices.0?choice0?A}\nB. {choices.1?choice1?B}\nC. {choices.2?choice2?C}\nD. {choices.3?choice3?D}\nAnswer:",
 "choices": ["A", "B", "C", "D"], "gold": "{answer}", "metrics": ["acc"],
 "shot_order": "first", "by": "{subject?file}", "groups": {
  "stem": [
   "abstract_algebra", "anatomy", "astronomy", "college_biology", "college_chemistry",
   "college_computer_science", "college_mathematics", "college_physics",
   "computer_security", "conceptual_physics", "electrical_engineering",
   "elementary_mathematics", "high_school_biology", "high_school_chemistry",
   "high_school_computer_science", "high_school_mathematics", "high_school_physics",
   "high_school_statistics", "machine_learning"],
  "other": [
   "business_ethics", "clinical_knowledge", "college_medicine", "global_facts",
   "human_aging", "management", "marketing", "medical_genetics", "miscellaneous",
   "nutrition", "professional_accounting", "professional_medicine", "virology"],
  "social_sciences": [
   "econometrics", "high_school_geography", "high_school_government_and_politics",
   "high_school_macroeconomics", "high_school_microeconomics", "high_school_psychology",
   "human_sexuality", "professional_psychology", "public_relations", "security_studies",
   "sociology", "us_foreign_policy"],
  "humanities": [
   "formal_logic", "high_school_european_history", "high_school_us_history",
   "high_school_world_history", "international_law", "jurisprudence", "logical_fallacies",
   "moral_disputes", "moral_scenarios", "philosophy", "prehistory", "professional_law",
   "world_religions"]}},
{"name": "wikitext", "version": "lm-eval-2.0",
 "source": {"hub": "EleutherAI/wikitext_document_level", "subset": "wikitext-2-raw-v1", "split": "test"},
 "text": "{page|detokenize_wikitext}", "measured": "{page}",
 "metrics": ["word_perplexity", "byte_perplexity", "bits_per_byte"]},
{"name": "gsm8k", "version": "lm-eval-3.0",
 "source": {"hub": "openai/gsm8k", "subset": "main", "split": "test"},
 "prompt": "Question: {question}\nAnswer:", "target": "{answer}", "shots": 5,
 "generate": {"stop": ["Question:", "</s>", "<|im_end|>"], "max_new_tokens": 256},
 "metrics": [
  {"name": "strict-match", "measure": "exact_match",
   "filters": [{"function": "regex", "pattern": "#### (\\-?[0-9\\.\\,]+)"}],
   "ignore": [",", "\\$", "(?s).*#### ", "\\.$"], "ignore_case": true},
  {"name": "flexible-extract", "measure": "exact_match",
   "filters": [{"function": "regex", "pattern": "(-?[$0-9.,]{2,})|(-?[0-9]+)", "group": -1}],
   "ignore": [",", "\\$", "(?s).*#### ", "\\.$"], "ignore_case": true}]},
)json"
                                                  R"json(
{"name": "arc_easy", "version": "llm-foundry",
 "prompt": "{query}\nAnswer:", "choices": "{choices}", "gold": "{gold}",
 "metrics": ["acc", "acc_norm"]},
{"name": "arc_challenge", "version": "llm-foundry",
 "prompt": "{query}\nAnswer:", "choices": "{choices}", "gold": "{gold}",
 "metrics": ["acc", "acc_norm"]},
{"name": "winogrande", "version": "llm-foundry",
 "prompts": "{context_options}", "choices": ["{continuation}"], "gold": "{gold}",
 "metrics": ["acc"]},
{"name": "lambada_openai", "version": "llm-foundry", "files": ["lambada_openai", "lambada"],
 "prompt": "{context}", "choices": ["{continuation}"],
 "metrics": ["acc", "ppl"]}
])json";

/// Rows of one's own, in a file whose name is no task that ships: {query, choices, gold},
/// {context_options, continuation, gold} or {context, continuation}.
inline constexpr std::string_view kOwnForms = R"json([
{"name": "own", "version": "query",
 "prompt": "{query}\nAnswer:", "choices": "{choices}", "gold": "{gold}",
 "metrics": ["acc", "acc_norm"]},
{"name": "own", "version": "contexts",
 "prompts": "{context_options}", "choices": ["{continuation}"], "gold": "{gold}",
 "metrics": ["acc"]},
{"name": "own", "version": "continuation",
 "prompt": "{context}", "choices": ["{continuation}"],
 "metrics": ["acc", "ppl"]}
])json";

}  // namespace espalier::eval
