// SPDX-License-Identifier: Apache-2.0
#include <espalier/eval/compare.hpp>

#include "support/catch.hpp"
#include "support/temporary_folder.hpp"

using namespace espalier;
using namespace espalier::eval;
using espalier::test::message_of;
namespace fs = std::filesystem;

namespace {

/// A journal of `count` questions, right but for those in `wrong`.
std::string journal(int count, const std::vector<int>& wrong, const std::string& prompt = "p") {
  std::string text;
  for (int i = 0; i < count; ++i) {
    const bool right = std::count(wrong.begin(), wrong.end(), i) == 0;
    text += "{\"id\": " + std::to_string(i) + ", \"acc\": " + (right ? "1" : "0") +
            ", \"prompt\": \"" + prompt + std::to_string(i) + "\"}\n";
  }
  return text;
}

std::vector<int> from_to(int begin, int end) {
  std::vector<int> all;
  for (int i = begin; i < end; ++i) all.push_back(i);
  return all;
}

}  // namespace

TEST_CASE("compare: 14 of 400 questions lost and 2 gained is a difference", "[eval]") {
  test::TemporaryFolder folder;
  for (const char* name : {"base", "pruned"}) fs::create_directory(folder / name);
  test::write_bytes(folder / "base/arc_easy.jsonl", journal(400, from_to(100, 202)));
  std::vector<int> wrong = from_to(102, 202);
  for (int i = 0; i < 14; ++i) wrong.push_back(i);
  test::write_bytes(folder / "pruned/arc_easy.jsonl", journal(400, wrong));
  test::write_bytes(folder / "base/mmlu_pro.jsonl", "{\"question_id\": 3}\n");
  test::write_bytes(folder / "pruned/mmlu_pro.jsonl", "{\"question_id\": 3}\n");
  auto all = compare_results(folder / "base", folder / "pruned", "pruned");
  adjust_for_number(all);
  REQUIRE(all.size() == 1);
  const Comparison& c = all[0];
  CHECK(c.task == "arc_easy");
  CHECK(c.metric == "acc");
  CHECK(c.questions == 400);
  CHECK(c.gained == 2);
  CHECK(c.lost == 14);
  CHECK_THAT(c.difference.value, Catch::WithinAbs(-0.03, 1e-12));
  CHECK_THAT(c.difference.standard_error, Catch::WithinAbs(0.0099, 5e-5));
  CHECK_THAT(c.p, Catch::WithinRel(0.004180908203125, 1e-12));
  CHECK(c.p_holm == c.p);
  CHECK(c.interval.high < 0);
  CHECK_THAT(c.interval.low, Catch::WithinAbs(-0.03 - 1.96 * 0.0099, 3e-3));
}

TEST_CASE("compare: other questions or prompts are refused by their number", "[eval]") {
  test::TemporaryFolder folder;
  for (const char* name : {"a", "b"}) fs::create_directory(folder / name);
  const auto refused = [&](const std::string& first, const std::string& other) {
    test::write_bytes(folder / "a/t.jsonl", first);
    test::write_bytes(folder / "b/t.jsonl", other);
    return message_of<UsageError>([&] { (void)compare_results(folder / "a", folder / "b", "b"); },
                                  folder.path());
  };
  CHECK_THAT(refused(journal(10, {}), journal(10, {}, "q")),
             Catch::StartsWith("b/t.jsonl: question 0 was asked otherwise than in a/t.jsonl"));
  CHECK_THAT(refused(journal(10, {}), journal(12, {})),
             Catch::StartsWith("b/t.jsonl: question 10 is not in a/t.jsonl"));
  CHECK_THAT(refused(journal(12, {}), journal(10, {})),
             Catch::StartsWith("b/t.jsonl: question 10 is missing, but is in a/t.jsonl"));
  CHECK(refused(journal(9, {1}), journal(9, {2})) == "no exception");
}
