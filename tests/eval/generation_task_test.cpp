// SPDX-License-Identifier: Apache-2.0
// Tasks that are decided by what the model writes, and by the perplexity of texts.
#include <espalier/eval/generation_task.hpp>

#include <espalier/eval/result_files.hpp>
#include <espalier/eval/text_task.hpp>

#include "eval/fake_model.hpp"
#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

namespace espalier::eval {
namespace {

std::vector<std::int32_t> bytes_as_tokens(std::string_view text, bool add_special) {
  std::vector<std::int32_t> ids;
  if (add_special) ids.push_back(1);
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c) + 2);
  return ids;
}

Session session_of(test::FakeModel& model, const std::filesystem::path& output) {
  Session s;
  s.model = &model;
  s.encode = bytes_as_tokens;
  s.start = 1;
  s.model_name = "fake";
  s.fingerprint = "0123";
  s.output = output;
  return s;
}

TaskData gsm8k() {
  for (const TaskDefinition& d : shipped_tasks()) {
    if (d.name != "gsm8k") continue;
    TaskData data{d, {}};
    for (const char* row : {R"({"question": "1000 + 1?", "answer": "A sum.\n#### 1,001"})",
                            R"({"question": "2 + 2?", "answer": "Easy.\n#### 4"})"}) {
      data.questions.push_back(d.question(io::parse_json(row, "row")));
    }
    return data;
  }
  throw UsageError("no gsm8k");
}

}  // namespace

TEST_CASE("generation: GSM8K by both filters, as lm-evaluation-harness counts", "[eval]") {
  test::TemporaryFolder folder;
  test::FakeModel model;
  const auto ask = [&](const char* q, const char* answer) {
    model.texts[bytes_as_tokens(std::string("Question: ") + q + "\nAnswer:", true)] = answer;
  };
  ask("1000 + 1?", " So $1001.\n#### 1001");
  ask("2 + 2?", " That is 5, no, 4.");
  GenerationTask task("gsm8k", Prompts("gsm8k", gsm8k(), {.shots = 0}), 100);
  const Session session = session_of(model, folder.path());
  const TaskResult r = task.run(session);
  REQUIRE(r.metrics.size() == 2);
  CHECK(r.metrics[0].name == "exact_match,strict-match");
  CHECK(r.metrics[0].estimate.value == 0.5);
  CHECK(r.metrics[1].name == "exact_match,flexible-extract");
  // The last match of "(-?[$0-9.,]{2,})|(-?[0-9]+)" in the second answer is "4." and "." goes.
  CHECK(r.metrics[1].estimate.value == 1.0);
  CHECK(r.tokens_asked == 1 + 27 + 1 + 24);
  const auto lines = io::read_jsonl(folder / "gsm8k.jsonl");
  CHECK(lines[1].at("predictions").at("exact_match,strict-match").as_string() == "[invalid]");
  CHECK(lines[0].at("target").as_string() == "A sum.\n#### 1,001");
  CHECK_FALSE(lines[0].at("cut").as_bool());

  write_results({r}, {"fake", "f32", "cpu", -1, 5, 7}, session);
  const auto date = date_in_name(5);
  const io::Json results =
      io::read_json(folder.path() / "lm_eval/fake" / ("results_" + date + ".json"));
  CHECK(results.at("results").at("gsm8k").at("exact_match,strict-match").as_double() == 0.5);
  CHECK(results.at("n-shot").at("gsm8k").as_int() == 0);
  const auto samples =
      io::read_jsonl(folder.path() / "lm_eval/fake" / ("samples_gsm8k_" + date + ".jsonl"));
  REQUIRE(samples.size() == 4);  // each question by each filter
  CHECK(samples[1].at("filter").as_string() == "flexible-extract");
  CHECK(samples[1].at("exact_match").as_double() == 1);
  CHECK(samples[1].at("filtered_resps").at(0).as_string() == "1001");
}

TEST_CASE("generation: IFEval by prompt and by instruction; what cannot be checked is left out",
          "[eval]") {
  test::TemporaryFolder folder, output;
  test::write_bytes(
      folder / "ifeval.jsonl",
      R"({"key": 1, "prompt": "A", "instruction_id_list": ["punctuation:no_comma", "change_case:english_lowercase"], "kwargs": [{}, {}]})"
      "\n"
      R"({"key": 2, "prompt": "B", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]})"
      "\n"
      R"({"key": 3, "prompt": "C", "instruction_id_list": ["language:response_language"], "kwargs": [{"language": "de"}]})"
      "\n");
  test::FakeModel model;
  model.texts[bytes_as_tokens("A", true)] = "All right, then";  // follows neither
  model.texts[bytes_as_tokens("B", true)] = "fine";
  GenerationTask task("ifeval", Prompts("ifeval", load_task("ifeval", folder.path()), {}));
  const TaskResult r = task.run(session_of(model, output.path()));
  REQUIRE(r.metrics.size() == 4);
  CHECK(r.metrics[0].name == "prompt_level_strict_acc");
  CHECK(r.metrics[0].estimate.value == 0.5);
  CHECK(r.metrics[1].name == "inst_level_strict_acc");
  CHECK(r.metrics[1].estimate.value == Approx(1.0 / 3));
  CHECK(r.documents == 2);
  CHECK(r.notes ==
        std::vector<std::string>{"1 rows are left out: language:response_language is not checked"});
}

TEST_CASE("generation: MATH's answer stands between dollar signs, or in a box", "[eval]") {
  test::TemporaryFolder folder;
  test::write_bytes(folder / "math.jsonl",
                    R"({"problem": "Half of 1?", "solution": "It is $\\boxed{\\frac{1}{2}}$.", )"
                    R"("type": "Algebra"})");
  const auto score = [&](const char* name, const char* prompt, const char* answer) {
    test::TemporaryFolder output;
    test::FakeModel model;
    model.texts[bytes_as_tokens(prompt, true)] = answer;
    GenerationTask task(name, Prompts(name, load_task(name, folder.path()), {}), 50);
    return task.run(session_of(model, output.path())).metrics.at(0).estimate.value;
  };
  const char* const plain = "Problem: Half of 1?\nAnswer:";
  CHECK(score("hendrycks_math", plain, " $\\frac12$.") == 1);
  CHECK(score("hendrycks_math", plain, " The answer is 1/2.") == 0);
  CHECK(score("hendrycks_math", plain, " \\boxed{\\frac12}") == 0);  // as the harness counts
  const char* const boxed =
      "Half of 1?\n\nReason step by step, and put the final answer within \\boxed{}.\n";
  CHECK(score("math_boxed", boxed, "So \\boxed{0.5}") == 1);
  CHECK(score("math_boxed", boxed, "So \\boxed{0.4}") == 0);
}

TEST_CASE("generation: a prompt that leaves no room loses its beginning, and is counted",
          "[eval]") {
  test::TemporaryFolder folder;
  test::FakeModel model;
  const std::string whole = "Question: 1000 + 1?\nAnswer:";
  std::vector<std::int32_t> ids = bytes_as_tokens(whole, true);
  ids.erase(ids.begin(), ids.end() - 26);
  model.texts[ids] = "x";
  model.texts[bytes_as_tokens("Question: 2 + 2?\nAnswer:", true)] = "x";
  Session session = session_of(model, folder.path());
  session.max_length = 126;
  GenerationTask task("gsm8k", Prompts("gsm8k", gsm8k(), {.shots = 0}), 100);
  CHECK(task.run(session).truncated == 1);
  session.max_length = 100;
  CHECK_THROWS_WITH(task.run(session), Catch::Contains("takes 100 tokens, which leaves none"));
}

TEST_CASE("texts: windows predict each token once, the last looks back", "[eval]") {
  // lm_eval.utils.get_rolling_token_windows([10..19], prefix_token=1, max_seq_len=4, context_len=1)
  // with make_disjoint_window
  const std::vector<std::int32_t> ids = {10, 11, 12, 13, 14, 15, 16, 17, 18, 19};
  const auto windows = rolling_windows(ids, 1, 4);
  REQUIRE(windows.size() == 3);
  using Ids = std::vector<std::int32_t>;
  CHECK(windows[0].context == Ids{1});
  CHECK(windows[0].continuation == Ids{10, 11, 12, 13});
  CHECK(windows[1].context == Ids{13});
  CHECK(windows[1].continuation == Ids{14, 15, 16, 17});
  CHECK(windows[2].context == Ids{15, 16, 17});
  CHECK(windows[2].continuation == Ids{18, 19});
  CHECK(rolling_windows({}, 1, 4).empty());
  CHECK(rolling_windows(Ids{10, 11}, 1, 4).at(0).continuation == Ids{10, 11});
}

TEST_CASE("texts: WikiText is counted in the words and bytes of the page as it came", "[eval]") {
  // lm_eval.tasks.wikitext.preprocess_wikitext.wikitext_detokenizer
  CHECK(detokenize_wikitext(" = Tree = \n The tree ( oak ) , 10 @,@ 000 N tall , is \" big \" ; "
                            "it 's [ not ] small . \n") ==
        " = Tree =\nThe tree (oak), 10,000 1 tall, is \"big\"; it's [not] small.\n");
  test::TemporaryFolder folder, output;
  test::FakeModel model;
  test::write_bytes(folder / "wikitext.jsonl", "{\"page\": \"a , b\\n\"}\n{\"page\": \"c\"}\n");
  const TaskData data = load_task("wikitext", folder.path());
  TextTask task("wikitext", Prompts("wikitext", data, {}));
  const TaskResult r = task.run(session_of(model, output.path()));
  double sum = 0;  // of "a, b\n" and "c", each after BOS
  for (const std::string text : {"a, b\n", "c"}) {
    const auto ids = bytes_as_tokens(text, false);
    for (std::size_t i = 0; i < ids.size(); ++i) sum += test::FakeModel::log_prob(1 + i, ids[i]);
  }
  REQUIRE(r.metrics.size() == 3);
  CHECK(r.metrics[0].name == "word_perplexity");
  CHECK(r.metrics[0].estimate.value == Approx(std::exp(-sum / 5)));  // len(re.split(r"\s+")): 4, 1
  CHECK(r.metrics[1].estimate.value == Approx(std::exp(-sum / 7)));
  CHECK(r.metrics[2].estimate.value == Approx(-sum / 7 / std::log(2.0)));
}

}  // namespace espalier::eval
