// SPDX-License-Identifier: Apache-2.0
// Compares models question by question, from the journals that evaluations leave (TASK.jsonl: a
// line per question with its id, what was asked, and what was counted).
#pragma once

#ifdef __CUDACC__
#error "espalier/eval/compare.hpp is host-only; include it from a .cpp"
#endif

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include <espalier/eval/paired_tests.hpp>
#include <espalier/io/jsonl.hpp>

namespace espalier::eval {

/// What a journal counted, by question.
struct JournalScores {
  struct Answer {
    std::string prompt;  // fingerprint of what was asked; empty where the journal has none
    std::map<std::string, double> values;  // by metric
  };
  std::map<std::int64_t, Answer> answers;
  std::vector<std::string> metrics;  // that every answer has
};

/// @throws FormatError naming the line
[[nodiscard]] JournalScores read_journal_scores(const std::filesystem::path& path);

/// One metric of one task, of another model against the first.
struct Comparison {
  std::string task, metric, model;
  std::int64_t questions = 0;
  double first = 0, other = 0;        // means
  Estimate difference;                // other - first, with the standard error of paired samples
  Interval interval;                  // 95 % of it, by the bootstrap
  std::int64_t gained = 0, lost = 0;  // questions that only the other, or only the first has right
  double p = 1;                       // McNemar's exact test where values are 0 or 1, else NaN
  double p_holm = 1;                  // among all comparisons
  double detectable = 0;              // smallest difference found in 80 % of cases

  bool is_share() const { return p == p; }
};

/// The journals that two result folders share. `label` names the other model.
/// @throws UsageError if a question was asked otherwise, or only one of them has it; the message
/// says which
[[nodiscard]] std::vector<Comparison> compare_results(const std::filesystem::path& first,
                                                      const std::filesystem::path& other,
                                                      const std::string& label);

/// Fills in `p_holm`.
void adjust_for_number(std::vector<Comparison>& all);

}  // namespace espalier::eval

#ifdef ESP_BODIES
#include <limits>

namespace espalier::eval {

namespace detail {

inline constexpr const char* kComparedMetrics[] = {"acc", "acc_norm", "mc2"};

inline JournalScores::Answer parse_answer(const io::Json& line) {
  JournalScores::Answer answer;
  if (const io::Json* prompt = line.find("prompt")) answer.prompt = prompt->as_string();
  for (const char* metric : kComparedMetrics) {
    if (const io::Json* value = line.find(metric)) answer.values[metric] = value->as_double();
  }
  return answer;
}

/// Both journals ask the same: the ids, and the fingerprint of each prompt.
inline void require_same_questions(const JournalScores& a, const JournalScores& b,
                                   const std::filesystem::path& first,
                                   const std::filesystem::path& other) {
  const auto refuse = [&](std::int64_t id, const char* why) {
    throw UsageError(
        espalier::detail::concat({other.string(), ": question ", id, " ", why, " ", first.string(),
                                  "; compare runs with the same questions, shots and "
                                  "templates"}));
  };
  for (const auto& [id, answer] : b.answers) {
    const auto same = a.answers.find(id);
    if (same == a.answers.end()) refuse(id, "is not in");
    if (same->second.prompt != answer.prompt) refuse(id, "was asked otherwise than in");
  }
  for (const auto& [id, answer] : a.answers) {
    if (b.answers.count(id) == 0) refuse(id, "is missing, but is in");
  }
}

inline Comparison compare_metric(const JournalScores& a, const JournalScores& b,
                                 const std::string& metric) {
  Comparison c;
  c.metric = metric;
  std::vector<double> before, after;
  bool shares = true;
  for (const auto& [id, answer] : a.answers) {
    before.push_back(answer.values.at(metric));
    after.push_back(b.answers.at(id).values.at(metric));
    shares = shares && (before.back() == 0 || before.back() == 1) &&
             (after.back() == 0 || after.back() == 1);
    c.gained += after.back() > before.back() ? 1 : 0;
    c.lost += after.back() < before.back() ? 1 : 0;
  }
  c.questions = static_cast<std::int64_t>(before.size());
  c.first = mean_of(before).value;
  c.other = mean_of(after).value;
  c.difference = paired_difference(after, before);
  std::vector<double> differences(before.size());
  for (std::size_t i = 0; i < before.size(); ++i) differences[i] = after[i] - before[i];
  c.interval = bootstrap_interval(differences, {}, 1234);
  c.p = shares ? mcnemar_exact(c.gained, c.lost) : std::numeric_limits<double>::quiet_NaN();
  const double spread = c.difference.standard_error * std::sqrt(static_cast<double>(c.questions));
  c.detectable = smallest_detectable(c.questions, spread * spread);
  return c;
}

}  // namespace detail

ESP_INLINE JournalScores read_journal_scores(const std::filesystem::path& path) {
  JournalScores scores;
  const std::string text = io::read_text(path);
  io::for_each_json_line(text, path.string(), [&](const io::Json& line, std::size_t) {
    const io::Json* id = line.find("id");
    if (id == nullptr) return;  // of another form: generations, requests
    scores.answers[id->as_int()] = detail::parse_answer(line);
  });
  for (const char* metric : detail::kComparedMetrics) {
    const auto has = [&](const auto& entry) { return entry.second.values.count(metric) > 0; };
    if (!scores.answers.empty() && std::all_of(scores.answers.begin(), scores.answers.end(), has)) {
      scores.metrics.push_back(metric);
    }
  }
  return scores;
}

ESP_INLINE std::vector<Comparison> compare_results(const std::filesystem::path& first,
                                                   const std::filesystem::path& other,
                                                   const std::string& label) {
  std::vector<std::filesystem::path> journals;
  std::error_code error;
  for (std::filesystem::directory_iterator it(first, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() == ".jsonl" &&
        std::filesystem::exists(other / it->path().filename())) {
      journals.push_back(it->path());
    }
  }
  ESP_REQUIRE(!error, IoError, first.string(), ": cannot read: ", error.message());
  std::sort(journals.begin(), journals.end());
  std::vector<Comparison> all;
  for (const std::filesystem::path& journal : journals) {
    const std::filesystem::path theirs = other / journal.filename();
    const JournalScores a = read_journal_scores(journal), b = read_journal_scores(theirs);
    if (a.metrics.empty() || b.metrics.empty()) continue;
    detail::require_same_questions(a, b, journal, theirs);
    for (const std::string& metric : a.metrics) {
      if (std::count(b.metrics.begin(), b.metrics.end(), metric) == 0) continue;
      all.push_back(detail::compare_metric(a, b, metric));
      all.back().task = journal.stem().string();
      all.back().model = label;
    }
  }
  return all;
}

ESP_INLINE void adjust_for_number(std::vector<Comparison>& all) {
  std::vector<double> p;
  for (const Comparison& c : all) {
    if (c.is_share()) p.push_back(c.p);
  }
  const std::vector<double> adjusted = holm(p);
  auto next = adjusted.begin();
  for (Comparison& c : all) c.p_holm = c.is_share() ? *next++ : c.p;
}

}  // namespace espalier::eval
#endif
