// SPDX-License-Identifier: Apache-2.0
#include <espalier/eval/held_out_loss.hpp>
#include <espalier/eval/lighteval_results.hpp>
#include <espalier/eval/multiple_choice.hpp>
#include <espalier/eval/python_random.hpp>
#include <espalier/eval/requests.hpp>
#include <espalier/eval/result_files.hpp>

#include <set>

#include <espalier/text/tokenizer.hpp>

#include "eval/fake_model.hpp"
#include "support/catch.hpp"

namespace espalier::eval {
namespace {

namespace fs = std::filesystem;
const fs::path kGolden = ESPALIER_TESTS_DIR "/golden";

/// The golden tokenizer and a model without weights.
struct Setup {
  text::Tokenizer tokenizer = text::Tokenizer::load(kGolden / "tiny_mixtral/model");
  test::FakeModel model;

  Encode encode() const {
    return [this](std::string_view text, bool add_special) {
      return tokenizer.encode(text, add_special);
    };
  }
  Session session(const fs::path& output, bool resume = false) {
    Session s;
    s.model = &model;
    s.encode = encode();
    s.start = tokenizer.bos_id().value();
    s.model_name = "fake";
    s.fingerprint = "0123";
    s.output = output;
    s.resume = resume;
    s.score_tokens = 20;
    return s;
  }
  /// What the fake model says of a continuation.
  double sum(const infer::Continuation& c) const {
    double s = 0;
    for (std::size_t i = 0; i < c.continuation.size(); ++i) {
      s += test::FakeModel::log_prob(c.context.size() + i, c.continuation[i]);
    }
    return s;
  }
};

template <class Call>
std::string message_of(Call&& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TaskData own_questions(const fs::path& file) {
  return load_questions({file}, own_forms());
}

ChoiceTask own_task(const std::string& name, const fs::path& file, PromptOptions options = {}) {
  return {name, Prompts(name, own_questions(file), std::move(options))};
}

TEST_CASE("Contexts and continuations are cut as lm-evaluation-harness cuts them", "[eval]") {
  const Setup setup;
  std::size_t cases = 0;
  for (const io::Json& row : io::read_jsonl(kGolden / "evaluation/encode_pairs.jsonl")) {
    CAPTURE(io::dump(row));
    const infer::Continuation pair = encode_pair(setup.encode(), setup.tokenizer.bos_id().value(),
                                                 row.at(0).as_string(), row.at(1).as_string());
    CHECK(io::dump(io::Json::array(pair.context)) == io::dump(row.at(2)));
    if (row.at(3).items().empty() && !row.at(1).as_string().empty()) {
      // A token spans the join: the harness stops there. Here the continuation is cut alone.
      CHECK(pair.continuation == setup.tokenizer.encode(row.at(1).as_string(), false));
    } else {
      CHECK(io::dump(io::Json::array(pair.continuation)) == io::dump(row.at(3)));
    }
    ++cases;
  }
  CHECK(cases == 16);
}

TEST_CASE("A context of white space alone stands for BOS", "[eval]") {
  const Setup setup;
  const infer::Continuation pair = encode_pair(setup.encode(), 1, "  \n", "the");
  CHECK(pair.context == std::vector<std::int32_t>{1});
  std::vector<std::int32_t> whole = setup.tokenizer.encode("  \nthe", true);
  whole.erase(whole.begin());
  CHECK(pair.continuation == whole);
}

TEST_CASE("A rendered chat, which begins with BOS, gets no second one", "[eval]") {
  const Setup setup;
  const std::string bos = "<s>";
  const auto plain = encode_pair(setup.encode(), 1, "the tree", " grows");
  const auto rendered = encode_pair(setup.encode(), 1, bos + "the tree", " grows");
  CHECK(rendered.context == plain.context);
  CHECK(rendered.continuation == plain.continuation);
  const auto twice = encode_pair(setup.encode(), 1, bos + bos + "the tree", " grows");
  CHECK(twice.context.size() == plain.context.size() + 1);
}

TEST_CASE("A continuation whose token spans the join is scored, not taken for nothing", "[eval]") {
  // A tokenizer of one token for each word, so that "hello wor" + "ld" has as many as "hello wor".
  const Encode words = [](std::string_view text, bool special) {
    std::vector<std::int32_t> ids;
    if (special) ids.push_back(1);
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find(' ', begin + 1), text.size());
      ids.push_back(static_cast<std::int32_t>(10 + end - begin));
      begin = end;
    }
    return ids;
  };
  const auto pair = encode_pair(words, 1, "hello wor", "ld");
  CHECK(pair.context == std::vector<std::int32_t>{1, 15, 14});
  CHECK(pair.continuation == std::vector<std::int32_t>{12});
}

TEST_CASE("Texts longer than the model takes lose their beginning", "[eval]") {
  infer::Continuation pair{{1, 2, 3, 4, 5}, {6, 7}};
  cut_left(pair, 6);
  CHECK(pair.context == std::vector<std::int32_t>{1, 2, 3, 4, 5});
  cut_left(pair, 4);
  CHECK(pair.context == std::vector<std::int32_t>{3, 4, 5});
  cut_left(pair, 2);
  CHECK(pair.context == std::vector<std::int32_t>{5});
  CHECK_THROWS_AS(cut_left(pair, 1), FormatError);
}

const char* const kChoices =
    "{\"query\": \"Question: why?\", \"choices\": [\"so\", \"because of it\", \"no\"], \"gold\": "
    "1}\n"
    "{\"query\": \"Question: who?\", \"choices\": [\"he\", \"she\"], \"gold\": 0}\n"
    "\n"
    "{\"query\": \"Question: é?\", \"choices\": [\"中文\", \"x\"], \"gold\": 1}\n";

TEST_CASE("Multiple choice: prompts, journal and metrics", "[eval]") {
  Setup setup;
  const test::Folder folder("choices");
  io::write_text(folder.path / "q.jsonl", kChoices);
  ChoiceTask task = own_task("arc:easy", folder.path / "q.jsonl");
  const TaskResult result = task.run(setup.session(folder.path));
  const auto journal = io::read_jsonl(folder.path / "arc_easy.jsonl");
  REQUIRE(journal.size() == 3);
  const char* queries[] = {
      "Question: why?\nAnswer:", "Question: who?\nAnswer:", "Question: é?\nAnswer:"};
  const std::vector<std::vector<std::string>> choices = {
      {"so", "because of it", "no"}, {"he", "she"}, {"中文", "x"}};
  const double lengths[3][3] = {{2, 13, 2}, {2, 3, 0}, {2, 1, 0}};
  const std::size_t gold[] = {1, 0, 1};
  double acc = 0, acc_norm = 0;
  for (std::size_t q = 0; q < 3; ++q) {
    std::size_t best = 0, best_norm = 0;
    std::vector<double> sums;
    for (std::size_t c = 0; c < choices[q].size(); ++c) {
      sums.push_back(setup.sum(encode_pair(setup.encode(), 1, queries[q], " " + choices[q][c])));
      CHECK(journal[q].at("logprobs").at(c).as_double() == sums[c]);
      if (sums[c] > sums[best]) best = c;
      if (sums[c] / lengths[q][c] > sums[best_norm] / lengths[q][best_norm]) best_norm = c;
    }
    CHECK(journal[q].at("acc").as_int() == (best == gold[q] ? 1 : 0));
    CHECK(journal[q].at("acc_norm").as_int() == (best_norm == gold[q] ? 1 : 0));
    acc += best == gold[q] ? 1 : 0;
    acc_norm += best_norm == gold[q] ? 1 : 0;
  }
  REQUIRE(result.metrics.size() == 2);
  CHECK(result.metrics[0].estimate.value == acc / 3);
  CHECK(result.metrics[1].estimate.value == acc_norm / 3);
  const double p = acc / 3, spread = std::sqrt((acc * (1 - p) * (1 - p) + (3 - acc) * p * p) / 2);
  CHECK(result.metrics[0].estimate.standard_error == Approx(spread / std::sqrt(3.0)));
}

TEST_CASE("Contexts that differ share a continuation, and a last word is greedy or not", "[eval]") {
  Setup setup;
  const test::Folder folder("forms");
  io::write_text(
      folder.path / "w.jsonl",
      R"({"context_options": ["the one", "that other"], "continuation": "came", "gold": 1})"
      "\n");
  io::write_text(folder.path / "l.jsonl", R"({"context": "the one", "continuation": "came"})"
                                          "\n"
                                          R"({"context": "and then", "continuation": "he"})"
                                          "\n");
  const auto session = setup.session(folder.path);
  const TaskResult w = own_task("winogrande", folder.path / "w.jsonl").run(session);
  const auto line = io::read_jsonl(folder.path / "winogrande.jsonl").at(0);
  const infer::Continuation a = encode_pair(setup.encode(), 1, "the one", " came");
  const infer::Continuation b = encode_pair(setup.encode(), 1, "that other", " came");
  CHECK(line.at("logprobs").at(0).as_double() == setup.sum(a));
  CHECK(line.at("logprobs").at(1).as_double() == setup.sum(b));
  CHECK(w.metrics.at(0).estimate.value == (setup.sum(b) > setup.sum(a) ? 1.0 : 0.0));
  CHECK(w.metrics.size() == 1);

  const TaskResult l = own_task("lambada", folder.path / "l.jsonl").run(session);
  const infer::Continuation c = encode_pair(setup.encode(), 1, "and then", " he");
  REQUIRE(l.metrics.size() == 2);
  CHECK(l.metrics[1].name == "ppl");
  CHECK(l.metrics[1].estimate.value == Approx(std::exp(-(setup.sum(a) + setup.sum(c)) / 2)));
}

TEST_CASE("Shots are other questions of the file, drawn as lm-evaluation-harness draws", "[eval]") {
  const test::Folder folder("shots");
  std::string lines;
  for (int i = 0; i < 30; ++i) {
    const std::string n = std::to_string(i);
    lines += R"({"query": "Question: q)" + n + R"(", "choices": ["a)" + n + R"(", "b)" + n +
             R"("], "gold": 1})" + "\n";
  }
  io::write_text(folder.path / "q.jsonl", lines);
  const Prompts prompts("arc:easy", own_questions(folder.path / "q.jsonl"), {.shots = 2});
  REQUIRE(prompts.size() == 30);
  // Python: r = random.Random(1234); r.sample(range(30), 3) for each question, without itself
  PythonRandom random(1234);
  for (std::uint32_t i = 0; i < 30; ++i) {
    std::vector<std::uint32_t> drawn = random.sample(30, 3);
    drawn.erase(std::remove(drawn.begin(), drawn.end(), i), drawn.end());
    std::string want;
    for (int k = 0; k < 2; ++k) {
      const std::string n = std::to_string(drawn[static_cast<std::size_t>(k)]);
      want += "Question: q" + n + "\nAnswer: b" + n + "\n\n";
    }
    const std::string own = "Question: q" + std::to_string(i) + "\nAnswer:";
    CHECK(prompts.context(i, 0) == want + own);
    CHECK(want.find("q" + std::to_string(i) + "\n") == std::string::npos);
  }
  CHECK_THROWS_AS(own_task("x", folder.path / "q.jsonl", {.shots = 30}), UsageError);
}

TEST_CASE("Worked examples never contain the question, though it stands twice", "[eval]") {
  const test::Folder folder("duplicate_shots");
  std::string text;
  for (int i = 0; i < 6; ++i) {
    text += R"({"query": "Q)" + std::to_string(i / 2) + R"(", "choices": ["x", "y"], "gold": 0})" +
            "\n";
  }
  io::write_text(folder.path / "q.jsonl", text);
  const TaskData data = own_questions(folder.path / "q.jsonl");
  std::set<std::vector<std::string>> drawn;
  for (const std::int64_t seed : {1234, 1, 2, 3}) {
    const Prompts prompts("own", data, {.shots = 3, .seed = seed});
    REQUIRE(prompts.size() == 6);
    std::vector<std::string> shots;
    for (std::size_t i = 0; i < 6; ++i) {
      const std::string asked = prompts.question(i).context(0), whole = prompts.context(i, 0);
      REQUIRE(whole.ends_with(asked));
      shots.push_back(whole.substr(0, whole.size() - asked.size()));
      CAPTURE(seed, i, shots[i]);
      CHECK(shots[i].find("Q" + std::to_string(i / 2) + "\n") == std::string::npos);
      CHECK(std::count(shots[i].begin(), shots[i].end(), 'Q') == 3);
    }
    drawn.insert(shots);
  }
  CHECK(drawn.size() == 4);  // the seed acts
  CHECK_THROWS_AS(Prompts("own", data, {.shots = 5}), UsageError);
}

TEST_CASE("Questions that the model cannot take whole are counted", "[eval]") {
  const test::Folder folder("truncated"), output("truncated_output");
  std::string text;
  for (int i = 0; i < 3; ++i) {
    text += R"({"query": ")" + std::string(i == 1 ? 400 : 4, 'q') +
            R"(", "choices": ["x", "y"], "gold": 0})" + "\n";
  }
  io::write_text(folder.path / "q.jsonl", text);
  Setup setup;
  Session session = setup.session(output.path);
  session.max_length = 60;
  CHECK(own_task("own", folder.path / "q.jsonl").run(session).truncated == 1);
}

TEST_CASE("Questions that make no sense are refused with their line", "[eval]") {
  const test::Folder folder("bad_choices");
  const auto message = [&](const std::string& text) {
    io::write_text(folder.path / "q.jsonl", text);
    return message_of([&] { (void)own_questions(folder.path / "q.jsonl"); });
  };
  const std::string good = R"({"query": "q", "choices": ["a", "b"], "gold": 1})"
                           "\n";
  CHECK(message(good).empty());
  for (const char* bad :
       {R"({"query": "q", "choices": ["a", "b"], "gold": 2})", R"({"query": "q", "choices": []})",
        R"({"query": "q", "choices": ["a", ""], "gold": 0})", R"({"context": "q"})", "[]", "{\"que",
        R"({"context": "c", "continuation": "d"})",
        R"({"query": null, "choices": ["a", "b"], "gold": 0})"}) {
    CAPTURE(bad);
    const std::string text = message(good + bad + "\n");
    CHECK(text.find("line 2") != text.npos);
    CHECK(text.find('\n') == text.npos);
  }
  CHECK(message("\n").find("no question") != std::string::npos);
}

TEST_CASE("A likelihood task that is killed and resumed leaves the same bytes", "[eval]") {
  const test::Folder data("likelihood_data"), whole("likelihood_whole");
  io::write_text(data.path / "q.jsonl", kChoices);
  Setup setup;
  const auto run = [&](const fs::path& output, bool resume) {
    const Session session = setup.session(output, resume);
    const TaskResult r = own_task("arc:easy", data.path / "q.jsonl").run(session);
    write_results({r}, {"fake", "f32", "cpu", -1, 5, 7}, session);
  };
  run(whole.path, false);
  for (const int stop_after : {0, 3, 5}) {
    const test::Folder folder("likelihood_resumed");
    setup.model.fail_after = stop_after;
    CHECK_THROWS_AS(run(folder.path, true), test::Killed);
    setup.model.fail_after = -1;
    setup.model.scored = 0;
    run(folder.path, true);
    CHECK(setup.model.scored <= 7 - (stop_after >= 3 ? 2 : 0));  // the first asked has two choices
    CHECK(test::files_of(folder.path) == test::files_of(whole.path));
  }
}

TEST_CASE("Results have LightEval's layout", "[eval]") {
  TaskResult a, b;
  a.task = "arc:easy";
  a.documents = 3;
  a.original_documents = 9;
  a.metrics = {{"acc", {0.5, 0.1}}, {"acc_norm", {0.25, 0.2}}};
  b.task = "lambada";
  b.shots = 2;
  b.documents = b.original_documents = 1;
  b.metrics = {{"acc", {1.0, std::nan("")}}, {"ppl", {4.0, 1.0}}};
  const io::Json j = lighteval_results({a, b}, {"m", "f32", "cpu", 3, 10, 12.5});
  for (const char* key : {"config_general", "results", "versions", "config_tasks", "summary_tasks",
                          "summary_general"}) {
    CHECK(j.find(key) != nullptr);
  }
  const io::Json& results = j.at("results");
  CHECK(results.at("arc:easy|0").at("acc").as_double() == 0.5);
  CHECK(results.at("arc:easy|0").at("acc_norm_stderr").as_double() == 0.2);
  CHECK(results.at("lambada|2").at("ppl").as_double() == 4.0);
  CHECK(results.at("all").at("acc").as_double() == 0.75);
  CHECK(j.at("config_general").at("total_evaluation_time_secondes").as_string() == "2.5");
  CHECK(j.at("config_general").at("max_samples").as_int() == 3);
  CHECK(j.at("config_tasks").at("arc:easy|0").at("original_num_docs").as_int() == 9);
  CHECK(io::parse_json(io::dump_python(j, 2), "results")
            .at("results")
            .at("lambada|2")
            .at("acc_stderr")
            .is_null());
}

TEST_CASE("LightEval's own cases of likelihood accuracy hold", "[eval][.shared][shared]") {
  const io::Json suite = io::read_json(ESPALIER_SHARED_DATA "/metric_cases/loglikelihood_acc.json");
  std::size_t checked = 0;
  for (const io::Json& c : suite.at("test_cases").items()) {
    const io::Json& gold = c.at("doc").at("gold_index");
    if (gold.is_array() || c.at("metric_params").size() > 0) continue;
    std::vector<double> log_probs;
    for (const io::Json& v : c.at("model_response").at("logprobs").items()) {
      log_probs.push_back(v.as_double());
    }
    CAPTURE(c.at("name").as_string());
    const bool right = best_choice(log_probs) == static_cast<std::size_t>(gold.as_int());
    CHECK((right ? 1 : 0) == c.at("expected_output").at("acc").as_int());
    ++checked;
  }
  CHECK(checked >= 5);
}

TEST_CASE("The data at hand loads, with the prompts of lm-evaluation-harness",
          "[eval][.shared][shared]") {
  const fs::path data = ESPALIER_SHARED_DATA;
  const auto load = [&](const char* task) { return load_task(task, data); };
  const TaskData easy = load("arc:easy"), winogrande = load("winogrande"), last = load("lambada");
  CHECK(easy.questions.size() == 2376);
  CHECK(load("arc:challenge").questions.size() == 1172);
  CHECK(winogrande.questions.size() == 1267);
  CHECK(last.questions.size() == 5153);
  CHECK(easy.questions[1].solved() ==
        "Question: Which piece of safety equipment is used to keep mold spores from entering the "
        "respiratory system?\nAnswer: breathing mask");
  CHECK(winogrande.questions[1].solved() ==
        "Sarah was a much better surgeon than Maria so Sarah always got the harder cases.");
  CHECK(last.questions[0].continuation(0) == " signs");
}

TEST_CASE("Held-out loss: every run of targets, each token weighing alike", "[eval]") {
  Setup setup;
  const test::Folder folder("loss");
  const std::vector<data::Example> examples = {{{1, 2, 3, 4}, {0, 1, 1, 1}},
                                               {{1, 5, 6, 7, 8, 9}, {0, 0, 1, 0, 1, 1}}};
  const auto runs = continuations_of(examples[1]);
  REQUIRE(runs.size() == 2);
  CHECK(runs[0].context == std::vector<std::int32_t>{1, 5});
  CHECK(runs[0].continuation == std::vector<std::int32_t>{6});
  CHECK(runs[1].context == std::vector<std::int32_t>{1, 5, 6, 7});
  CHECK(runs[1].continuation == std::vector<std::int32_t>{8, 9});

  const TaskResult r = LossTask(examples).run(setup.session(folder.path));
  double sums[2] = {0, 0};
  for (std::size_t e = 0; e < 2; ++e) {
    for (std::size_t i = 1; i < examples[e].ids.size(); ++i) {
      if (examples[e].is_target[i]) sums[e] -= test::FakeModel::log_prob(i, examples[e].ids[i]);
    }
  }
  const double loss = (sums[0] + sums[1]) / 6;
  CHECK(r.metrics.at(0).estimate.value == Approx(loss).epsilon(1e-12));
  CHECK(r.metrics.at(1).estimate.value == Approx(std::exp(loss)).epsilon(1e-12));
  const double a = sums[0] - 3 * loss, b = sums[1] - 3 * loss;
  CHECK(r.metrics.at(0).estimate.standard_error ==
        Approx(std::sqrt(2 * (a * a + b * b)) / 6).epsilon(1e-9));
  const auto journal = io::read_jsonl(folder.path / "loss.jsonl");
  CHECK(journal.at(1).at("tokens").as_int() == 3);
  CHECK(journal.at(1).at("logprob").as_double() == -sums[1]);
}

TEST_CASE("Requests are answered in order, and a killed run goes on", "[eval]") {
  Setup setup;
  const test::Folder folder("requests");
  const fs::path in = folder.path / "in.jsonl", out = folder.path / "requests.jsonl";
  io::write_text(in, R"({"context": "the one ", "continuation": "came"})"
                     "\n"
                     R"({"context": "", "continuation": "and"})"
                     "\n"
                     R"({"context": "the one", "continuation": " came"})"
                     "\n"
                     R"({"context": "x", "continuation": ""})"
                     "\n");
  CHECK(answer_requests(setup.session(folder.path), in) == 4);
  const std::string whole = io::read_text(out);
  const auto lines = io::read_jsonl(out);
  REQUIRE(lines.size() == 4);
  const infer::Continuation pair = encode_pair(setup.encode(), 1, "the one ", "came");
  CHECK(lines[0].at("logprob").as_double() == setup.sum(pair));
  CHECK(lines[0].at("tokens").as_uint() == pair.continuation.size());
  CHECK(lines[0] == lines[2]);
  CHECK(lines[0].members().size() == 3);
  CHECK(lines[3].at("logprob").as_double() == 0);
  CHECK(lines[3].at("tokens").as_int() == 0);
  CHECK(lines[3].at("greedy").as_bool());

  fs::remove(out);
  Session session = setup.session(folder.path);
  session.score_tokens = 1;
  setup.model.fail_after = 2;
  CHECK_THROWS_AS(answer_requests(session, in), test::Killed);
  CHECK_FALSE(fs::exists(out));
  setup.model.fail_after = -1;
  setup.model.scored = 0;
  session.resume = true;
  CHECK(answer_requests(session, in) == 4);
  CHECK(setup.model.scored == 2);
  CHECK(io::read_text(out) == whole);

  // Neither answers nor the journal of a run that was cut short are overwritten.
  CHECK_THAT(message_of([&] { answer_requests(setup.session(folder.path), in); }),
             Catch::Contains("requests.jsonl: exists already; resume"));
  CHECK(io::read_text(out) == whole);
  fs::remove(out);
  session.resume = false;
  setup.model.fail_after = 3;
  CHECK_THROWS_AS(answer_requests(session, in), test::Killed);
  setup.model.fail_after = -1;
  const fs::path partial = folder.path / "requests.partial.jsonl";
  const std::string answered = io::read_text(partial);
  CHECK(std::count(answered.begin(), answered.end(), '\n') == 3);
  CHECK_THAT(message_of([&] { answer_requests(session, in); }),
             Catch::Contains("requests.partial.jsonl: exists already; resume"));
  CHECK(io::read_text(partial) == answered);
  fs::remove(partial);

  io::write_text(in, "{\"context\": \"a\", \"continuation\": \"b\"}\n{\"context\": 3}\n");
  CHECK(message_of([&] { answer_requests(setup.session(folder.path), in); }).find("line 2") !=
        std::string::npos);
}

TEST_CASE("Standard errors are those of the sample", "[eval]") {
  const std::vector<double> x = {1, 0, 0, 1, 1};
  const Estimate e = mean_of(x);
  CHECK(e.value == Approx(0.6));
  CHECK(e.standard_error == Approx(std::sqrt(0.3 / 5)));
  CHECK(std::isnan(mean_of(std::vector<double>{1}).standard_error));
  CHECK(share_of(3, 5).standard_error == Approx(e.standard_error));
}

}  // namespace
}  // namespace espalier::eval
