// SPDX-License-Identifier: Apache-2.0
// Scores the answers of MMLU-Pro. A question without a letter gets a random guess. Versions of the
// reference script draw it differently:
//   current           three levels; seeded once; categories sorted; every category is drawn twice,
//                     the second time counts
//   2024-07           three levels; seeded anew for every question
//   leaderboard-2024  level 1 only; seeded anew for every question
// A letter is compared with `answer`, a guess with `answer_index`.
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/mmlu_pro_score.hpp is host-only; include it from a .cpp"
#endif

#include <map>
#include <optional>

#include <espalier/eval/answer.hpp>
#include <espalier/eval/mmlu_pro_question.hpp>
#include <espalier/eval/python_random.hpp>
#include <espalier/eval/statistics.hpp>

namespace espalier::eval {

struct MmluProRule {
  std::string name;
  int levels = 3;
  bool reseed = false;
  bool guesses = true;      // else an answer that is not found is wrong
  bool last_match = false;  // of each pattern
};

[[nodiscard]] inline MmluProRule mmlu_pro_rule(const std::string& name) {
  if (name == "current") return {name, 3, false};
  if (name == "2024-07") return {name, 3, true};
  if (name == "leaderboard-2024") return {name, 1, true};
  if (name == "lm-eval") return {name, 1, false, false};
  if (name == "apiX") return {name, 3, false, false, true};
  throw UsageError("MMLU-Pro has no rule " + name +
                   "; expected current, 2024-07, leaderboard-2024, lm-eval or apiX");
}

/// The parts of an answered question that scoring needs.
struct AnsweredQuestion {
  std::int64_t id = 0;
  std::string category;
  std::uint32_t options = 0;
  std::string answer;
  std::int64_t answer_index = 0;
  Answer found;
};

[[nodiscard]] inline AnsweredQuestion answered(const MmluProQuestion& q, std::string_view text,
                                               const MmluProRule& rule) {
  return {q.id,     q.category,     static_cast<std::uint32_t>(q.options.size()),
          q.answer, q.answer_index, extract_answer(text, rule.levels, rule.last_match)};
}

struct Verdict {
  std::optional<std::int64_t> guess;
  bool correct = false;  // by letter, or by guess
};

/// Judges the answers, in the order of `questions`.
[[nodiscard]] inline std::vector<Verdict> judge(const std::vector<AnsweredQuestion>& questions,
                                                const MmluProRule& rule) {
  constexpr std::uint64_t kSeed = 12345;
  std::map<std::string, std::vector<std::size_t>> by_category;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    by_category[questions[i].category].push_back(i);
  }
  std::vector<Verdict> verdicts(questions.size());
  PythonRandom random(kSeed);
  for (const auto& [category, members] : by_category) {
    for (int pass = rule.reseed ? 1 : 0; pass < 2; ++pass) {
      for (const std::size_t i : members) {
        const AnsweredQuestion& q = questions[i];
        if (q.found) {
          verdicts[i].correct = q.answer == std::string_view(&q.found.letter, 1);
          continue;
        }
        if (!rule.guesses) continue;
        if (rule.reseed) random.seed(kSeed);
        verdicts[i].guess = random.below(q.options);
        verdicts[i].correct = *verdicts[i].guess == q.answer_index;
      }
    }
  }
  return verdicts;
}

struct MmluProScore {
  struct Category {
    std::size_t records = 0, correct = 0;
    double accuracy() const { return static_cast<double>(correct) / static_cast<double>(records); }
  };

  std::size_t records = 0, correct = 0, strict_correct = 0, unanswered = 0, lucky = 0;
  std::size_t level_records[4] = {}, level_correct[4] = {};  // [1] to [3]
  std::map<std::string, Category> categories;

  double accuracy() const { return static_cast<double>(correct) / static_cast<double>(records); }
  double macro() const {
    double sum = 0;
    for (const auto& [name, c] : categories) sum += c.accuracy();
    return sum / static_cast<double>(categories.size());
  }
};

[[nodiscard]] inline MmluProScore score_of(const std::vector<AnsweredQuestion>& questions,
                                           const std::vector<Verdict>& verdicts) {
  MmluProScore s;
  for (std::size_t i = 0; i < questions.size(); ++i) {
    const std::size_t hit = verdicts[i].correct ? 1 : 0;
    MmluProScore::Category& category = s.categories[questions[i].category];
    ++s.records;
    ++category.records;
    s.correct += hit;
    category.correct += hit;
    if (const int level = questions[i].found.level; level > 0) {
      ++s.level_records[level];
      s.level_correct[level] += hit;
      s.strict_correct += hit;
    } else {
      ++s.unanswered;
      s.lucky += hit;
    }
  }
  return s;
}

/// The score as a summary: the keys that every rule has, how often each level was right, and the
/// standard error of the accuracy.
[[nodiscard]] inline io::Json to_json(const MmluProScore& s, const MmluProRule& rule) {
  io::Json j = io::Json::object();
  j["rule"] = rule.name;
  j["records"] = s.records;
  j["correct"] = s.correct;
  j["accuracy"] = s.accuracy();
  j["accuracy_stderr"] = share_of(s.correct, s.records).standard_error;
  j["macro"] = s.macro();
  j["strict_correct"] = s.strict_correct;
  j["strict_accuracy"] = static_cast<double>(s.strict_correct) / static_cast<double>(s.records);
  for (const int level : {1, 2, 3}) {
    j["levels"][std::to_string(level)] = s.level_records[level];
  }
  for (const int level : {1, 2, 3}) {
    j["level_correct"][std::to_string(level)] = s.level_correct[level];
  }
  j["unanswered"] = s.unanswered;
  j["lucky"] = s.lucky;
  j["categories"] = io::Json::object();
  for (const auto& [name, c] : s.categories) {
    j["categories"][name]["records"] = c.records;
    j["categories"][name]["correct"] = c.correct;
    j["categories"][name]["accuracy"] = c.accuracy();
  }
  return j;
}

}  // namespace espalier::eval
