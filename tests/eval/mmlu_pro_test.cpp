// SPDX-License-Identifier: Apache-2.0
#include <espalier/eval/mmlu_pro.hpp>

#include <algorithm>
#include <set>

#include <espalier/eval/replay.hpp>
#include <espalier/io/sha256.hpp>

#include "eval/fake_model.hpp"
#include "support/catch.hpp"

namespace espalier::eval {
namespace {

namespace fs = std::filesystem;
const fs::path kGolden = ESPALIER_TESTS_DIR "/golden/evaluation";
const fs::path kShared = ESPALIER_SHARED_DATA;

std::string letter(const io::Json& j) {
  return j.is_null() ? "-" : j.as_string();
}
std::string letter(const Answer& a) {
  return a ? std::string(1, a.letter) : "-";
}

TEST_CASE("Draws equal CPython's random for every seed and method", "[eval]") {
  const io::Json golden = io::read_json(kGolden / "random.json");
  PythonRandom random(12345);
  for (const io::Json& want : golden.at("bits").items()) {
    REQUIRE(random.bits() == want.as_uint());
  }
  for (const io::Json::Member& m : golden.members()) {
    if (m.key == "bits") continue;
    CAPTURE(m.key);
    random.seed(std::stoull(m.key));
    std::int64_t n = 0;
    for (const io::Json& want : m.value.at("randint").items()) {
      CHECK(random.randint(0, n++) == want.as_int());
    }
    for (const io::Json& want : m.value.at("choice").items()) {
      CHECK(random.below(10) == want.as_uint());
    }
    for (const io::Json& row : m.value.at("sample").items()) {
      const auto got = random.sample(static_cast<std::uint32_t>(row.at(0).as_uint()),
                                     static_cast<std::uint32_t>(row.at(1).as_uint()));
      CHECK(io::Json::array(got) == io::parse_json(io::dump(row.at(2)), "want"));
    }
  }
  CHECK_THROWS_AS(random.below(0), Error);
}

TEST_CASE("Letters are found as Python's re finds them", "[eval]") {
  std::size_t cases = 0, found[4] = {};
  for (const io::Json& row : io::read_jsonl(kGolden / "extraction.jsonl")) {
    const std::string& text = row.at(0).as_string();
    CAPTURE(text);
    const Answer one = extract_answer(text, 1), three = extract_answer(text);
    CHECK(letter(one) == letter(row.at(1)));
    CHECK(letter(three) == letter(row.at(2)));
    CHECK(three.level == (row.at(3).is_null() ? 0 : row.at(3).as_int()));
    ++found[three.level];
    ++cases;
  }
  CHECK(cases > 1500);
  for (const std::size_t n : found) CHECK(n > 50);
}

TEST_CASE("Letters of every recorded answer equal Python's", "[eval][.shared][shared]") {
  const io::Json golden = io::read_json(kGolden / "shared_mmlu_pro.json");
  const io::Json records = io::read_json(kShared / "mmlu_pro/mixtral_8x7b_instruct_outputs.json");
  std::string one, three, levels;
  std::size_t recorded = 0;
  for (const io::Json& r : records.items()) {
    const std::string& text = r.at("generated_text").as_string();
    const Answer first = extract_answer(text, 1), any = extract_answer(text);
    one += letter(first);
    three += letter(any);
    levels += static_cast<char>('0' + any.level);
    recorded += letter(first) == letter(r.at("pred")) ? 1 : 0;
  }
  CHECK(one == golden.at("level_1").as_string());
  CHECK(three == golden.at("letters").as_string());
  CHECK(levels == golden.at("levels").as_string());
  CHECK(recorded == 12032);
}

TEST_CASE("Long hostile texts are searched in linear time", "[eval]") {
  const std::string many(2'000'000, 'A');
  CHECK_FALSE(extract_answer(many));
  std::string lines, leads;
  for (int i = 0; i < 200'000; ++i) lines += "B_\nanswer: b";
  for (int i = 0; i < 200'000; ++i) leads += "answer is (";
  CHECK(extract_answer(lines).level == 0);
  CHECK_FALSE(extract_answer(leads));
  CHECK_FALSE(extract_answer(std::string("\xff\xfe\x80"
                                         "A\x80\xc3"))
                  .level == 1);
}

TEST_CASE("Prompts equal those of the reference's format byte for byte", "[eval]") {
  const MmluProData data = load_mmlu_pro_data(kGolden / "mini");
  const MmluProPrompts prompts(data);
  const io::Json golden = io::read_json(kGolden / "mini/prompts.json");
  REQUIRE(data.questions.size() == 36);
  for (const MmluProQuestion& q : data.questions) {
    CAPTURE(q.id);
    const io::Json& want = golden.at(std::to_string(q.id));
    CHECK(io::sha256(prompts.text(q, 5)) == want.at(0).as_string());
    CHECK(io::sha256(prompts.text(q, 2)) == want.at(1).as_string());
    CHECK(io::sha256(prompts.text(q, 0)) == want.at(2).as_string());
    if (q.id == 70) CHECK(prompts.text(q, 5) == io::read_text(kGolden / "mini/one_prompt.txt"));
  }
}

TEST_CASE("Every prompt of the test split equals the reference's", "[eval][.shared][shared]") {
  const MmluProData data = load_mmlu_pro_data(kShared);
  const MmluProPrompts prompts(data);
  std::string digests;
  for (const MmluProQuestion& q : data.questions) {
    digests += io::sha256(prompts.text(q, 5)).substr(0, 8);
  }
  CHECK(data.header == kMmluProHeader);
  CHECK(digests == io::read_json(kGolden / "shared_mmlu_pro.json").at("prompts").as_string());
}

/// A token per byte, and one in front.
std::vector<std::int32_t> bytes_as_tokens(std::string_view text, bool add_special) {
  std::vector<std::int32_t> ids;
  if (add_special) ids.push_back(256);
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  return ids;
}

TEST_CASE("Shots are dropped until the prompt is shorter than the room for it", "[eval]") {
  const MmluProData data = load_mmlu_pro_data(kGolden / "mini");
  const MmluProPrompts prompts(data);
  const MmluProQuestion& q = data.questions[0];
  const auto size = [&](int shots) { return static_cast<int>(prompts.text(q, shots).size()) + 1; };
  const auto fitted = [&](int room) {
    return prompts.encode(q, {5, 100, 100 + room}, bytes_as_tokens);
  };
  CHECK(fitted(size(5) + 1).shots == 5);
  CHECK(fitted(size(5)).shots == 4);
  CHECK(fitted(size(2) + 1).shots == 2);
  CHECK(fitted(size(0) + 1).shots == 0);
  CHECK(fitted(size(0) + 1).fits);
  const MmluProPrompt hopeless = fitted(size(0));
  CHECK(hopeless.shots == 0);
  CHECK_FALSE(hopeless.fits);
  CHECK(static_cast<int>(hopeless.ids.size()) == size(0));
}

TEST_CASE("Scores equal the reference's under each rule", "[eval]") {
  const io::Json golden = io::read_json(kGolden / "mini/scores.json");
  for (const char* name : {"current", "2024-07", "leaderboard-2024"}) {
    const Replay r = replay(kGolden / "mini/outputs.json", mmlu_pro_rule(name));
    const io::Json& want = golden.at(name);
    REQUIRE(r.questions.size() == want.size());
    std::size_t correct = 0, guessed = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      CAPTURE(name, i);
      const io::Json line = to_json(r.questions[i], r.verdicts[i]);
      CHECK(line.at("pred") == want.at(i).at(0));
      CHECK(line.at("level") == want.at(i).at(1));
      CHECK(line.at("guess") == want.at(i).at(2));
      CHECK(line.at("correct") == want.at(i).at(3));
      correct += want.at(i).at(3).as_bool() ? 1 : 0;
      guessed += want.at(i).at(2).is_null() ? 0 : 1;
    }
    CHECK(r.score.correct == correct);
    CHECK(r.score.unanswered == guessed);
    CHECK(r.score.strict_correct + r.score.lucky == correct);
  }
  CHECK_THROWS_AS(mmlu_pro_rule("2023"), UsageError);
}

TEST_CASE("The published results follow from the recorded answers", "[eval][.shared][shared]") {
  const io::Json golden = io::read_json(kGolden / "shared_mmlu_pro.json");
  const auto file = kShared / "mmlu_pro/mixtral_8x7b_instruct_outputs.json";
  for (const char* name : {"current", "2024-07", "leaderboard-2024"}) {
    const Replay r = replay(file, mmlu_pro_rule(name));
    std::string correct, guesses;
    for (const Verdict& v : r.verdicts) {
      correct += v.correct ? '1' : '0';
      guesses += v.guess ? static_cast<char>('A' + *v.guess) : '-';
    }
    CHECK(correct == golden.at(name).at("correct").as_string());
    CHECK(guesses == golden.at(name).at("guess").as_string());
    const std::string accuracy = std::to_string(r.score.accuracy()).substr(0, 6);
    CHECK(accuracy == (r.score.correct == 5206 ? "0.4326" : "0.4316"));
    if (std::string(name) != "leaderboard-2024") continue;
    CHECK(r.score.correct == 5206);
    CHECK(r.score.unanswered == 1426);
    const std::map<std::string, std::size_t> table = {
        {"biology", 485},   {"business", 325},    {"chemistry", 312}, {"computer science", 182},
        {"economics", 471}, {"engineering", 283}, {"health", 413},    {"history", 170},
        {"law", 353},       {"math", 491},        {"other", 461},     {"philosophy", 236},
        {"physics", 518},   {"psychology", 506}};
    for (const auto& [category, want] : table) {
      CHECK(r.score.categories.at(category).correct == want);
    }
  }
}

TEST_CASE("A folder as the reference script writes it is replayed", "[eval][.shared][shared]") {
  const Replay r = replay(kShared / "mmlu_pro/run_example", mmlu_pro_rule("current"));
  const io::Json records = io::read_json(kShared / "mmlu_pro/run_example/computer science.json");
  REQUIRE(r.questions.size() == 410);
  for (std::size_t i = 0; i < 410; ++i) {
    CHECK(letter(r.questions[i].found) == letter(records.at(i).at("pred")));
  }
}

TEST_CASE("Records that cannot be scored are refused in one line", "[eval]") {
  const test::Folder folder("bad_records");
  const auto message = [&](const std::string& text) -> std::string {
    io::write_text(folder.path / "x.json", text);
    try {
      (void)replay(folder.path / "x.json", mmlu_pro_rule("current"));
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  const std::string good =
      R"({"question_id":1,"question":"q","options":["a"],"answer":"A","answer_index":0,)"
      R"("category":"law","model_outputs":"x"})";
  CHECK(message("[" + good + "]").empty());
  CHECK(message(good + "\n" + good + "\n").empty());
  for (const std::string& bad :
       {std::string(""), std::string("[]"), std::string("[1]"), std::string("[" + good),
        good + "\n{\"question_id\":2}\n",
        std::string(R"([{"question_id":1,"question":"q","options":[],"answer":"A",)"
                    R"("answer_index":0,"category":"law","model_outputs":"x"}])"),
        std::string(R"([{"question_id":1,"question":"q","options":["a"],"answer":"A",)"
                    R"("answer_index":0,"category":"../law","model_outputs":"x"}])"),
        std::string(R"([{"question_id":1,"question":"q","options":["a"],"answer":"A",)"
                    R"("answer_index":0,"category":"law"}])")}) {
    CAPTURE(bad);
    const std::string text = message(bad);
    CHECK(text.find("x.json") != text.npos);
    CHECK(text.find('\n') == text.npos);
  }
  CHECK(message(good + "\n{\"question_id\":2}\n").find("line 2") != std::string::npos);
}

/// The mini data with a model that answers what the golden outputs say.
struct Mini {
  test::FakeModel model;
  MmluProData data = load_mmlu_pro_data(kGolden / "mini");
  std::map<std::int64_t, std::string> outputs;

  Mini() {
    const io::Json recorded = io::read_json(kGolden / "mini/outputs.json");
    for (const io::Json& r : recorded.items()) {
      outputs[r.at("question_id").as_int()] = r.at("model_outputs").as_string();
    }
    const MmluProPrompts prompts(data);
    for (const MmluProQuestion& q : data.questions) {
      model.texts[bytes_as_tokens(prompts.text(q, 5), true)] = outputs.at(q.id);
    }
  }

  io::Json run(const fs::path& output, bool resume, std::int64_t limit = -1,
               const std::string& fingerprint = "0123") {
    MmluProOptions options;
    options.limits = {5, 64, 1 << 20};
    options.limit = limit;
    Session session;
    session.model = &model;
    session.encode = bytes_as_tokens;
    session.model_name = "fake";
    session.fingerprint = fingerprint;
    session.output = output;
    session.resume = resume;
    return MmluProTask(data, options).run(session).summary;
  }
};

TEST_CASE("A category of any name has a file", "[eval]") {
  const test::Folder folder("mmlu_pro_names");
  Mini mini;
  const std::string begin = std::string(300, 'x');
  for (MmluProQuestion& q : mini.data.questions) {
    if (q.category == "law") q.category = begin + "a";
    if (q.category == "math") q.category = begin + "/../b";
  }
  const MmluProPrompts prompts(mini.data);
  mini.model.texts.clear();
  for (const MmluProQuestion& q : mini.data.questions) {
    mini.model.texts[bytes_as_tokens(prompts.text(q, 5), true)] = mini.outputs.at(q.id);
  }
  const io::Json summary = mini.run(folder.path, false);
  CHECK(summary.at("categories").find(begin + "a") != nullptr);
  std::size_t files = 0, questions = 0;
  for (const auto& e : fs::recursive_directory_iterator(folder.path / "fake")) {
    if (!e.is_regular_file()) continue;
    ++files;
    questions += io::read_json(e.path()).size();
    CHECK(e.path().parent_path() == folder.path / "fake/CoT/all");
  }
  CHECK(files == 3);
  CHECK(questions == mini.data.questions.size());
}

TEST_CASE("A run leaves the files of the reference script", "[eval]") {
  const test::Folder folder("mmlu_pro_files");
  Mini mini;
  const io::Json summary = mini.run(folder.path, false);
  for (const char* category : {"computer science", "law", "math"}) {
    const std::string file = std::string(category) + ".json";
    // The reference keeps the order of the file within a category, as here.
    CHECK(io::read_text(folder.path / "fake/CoT/all" / file) ==
          io::read_text(kGolden / "mini/CoT" / file));
  }
  const Replay again = replay(folder.path, mmlu_pro_rule("current"));
  CHECK(summary.at("correct").as_uint() == again.score.correct);
  std::string text = "\n------category level sta------\n";
  for (const auto& [name, c] : again.score.categories) {
    char line[100];
    std::snprintf(line, sizeof line, "Average accuracy %.4f - %s\n", c.accuracy(), name.c_str());
    text += line;
  }
  char line[100];
  std::snprintf(line, sizeof line, "\n------average acc sta------\nAverage accuracy: %.4f\n",
                again.score.accuracy());
  CHECK(io::read_text(folder.path / "summary/fake-CoT-all_summary.txt") == text + line);
  CHECK(io::read_jsonl(folder.path / "mmlu_pro.jsonl").size() == 36);
}

TEST_CASE("A run that is killed anywhere and resumed leaves the same bytes", "[eval]") {
  const test::Folder whole("mmlu_pro_whole");
  Mini mini;
  const io::Json want = mini.run(whole.path, false);
  for (const int stop_after : {0, 1, 13, 30, 35}) {
    CAPTURE(stop_after);
    const test::Folder folder("mmlu_pro_resumed");
    mini.model.fail_after = stop_after;
    CHECK_THROWS_AS(mini.run(folder.path, true), test::Killed);
    mini.model.fail_after = -1;
    std::string journal = io::read_text(folder.path / "mmlu_pro.jsonl");
    CHECK(std::count(journal.begin(), journal.end(), '\n') == stop_after);
    io::write_text(folder.path / "mmlu_pro.jsonl", journal + "{\"question_id\": 70, \"te");
    mini.model.generated = 0;
    CHECK(mini.run(folder.path, true) == want);
    CHECK(mini.model.generated == 36 - stop_after);
    CHECK(test::files_of(folder.path) == test::files_of(whole.path));
    CHECK(mini.run(folder.path, true) == want);
    CHECK(mini.model.generated == 36 - stop_after);
  }
}

TEST_CASE("A journal of another model, prompt or selection is refused", "[eval]") {
  const test::Folder folder("mmlu_pro_other");
  Mini mini;
  (void)mini.run(folder.path, false, 10);
  const auto message = [&](auto&& run) -> std::string {
    try {
      run();
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  CHECK(message([&] { mini.run(folder.path, false, 10); }).find("resume to go on") !=
        std::string::npos);
  CHECK(message([&] { mini.run(folder.path, true, 10, "beef"); }).find("another model") !=
        std::string::npos);
  CHECK(message([&] { mini.run(folder.path, true, 4); }).find("not among the questions") !=
        std::string::npos);
  mini.data.header += "x";
  CHECK(message([&] { mini.run(folder.path, true, 10); }).find("another prompt") !=
        std::string::npos);
}

TEST_CASE("A limit takes the first questions of every category evenly", "[eval]") {
  Mini mini;
  MmluProOptions options;
  options.limit = 7;
  const MmluProTask task(mini.data, options);
  std::map<std::string, std::vector<std::int64_t>> got, all;
  for (const MmluProQuestion& q : task.questions()) got[q.category].push_back(q.id);
  for (const MmluProQuestion& q : mini.data.questions) all[q.category].push_back(q.id);
  REQUIRE(got.size() == 3);
  CHECK(got["computer science"].size() == 3);
  CHECK(got["law"].size() == 2);
  CHECK(got["math"].size() == 2);
  for (auto& [category, ids] : got) {
    CHECK(std::equal(ids.begin(), ids.end(), all[category].begin()));
  }
  options.limit = -1;
  options.subjects = "computer_sc,law";
  CHECK(MmluProTask(mini.data, options).questions().size() == 24);
  options.subjects = "astrology";
  CHECK_THROWS_AS(MmluProTask(mini.data, options), UsageError);
}

}  // namespace
}  // namespace espalier::eval
